#!/bin/sh
# Install the servers and libraries that zcat is compared with, each into an environment of its own.
#
#   bench/install_peers.sh FOLDER [NAME ...]        names: caterva2 h5grove tiled zarr nginx (default: all)
#
# Python packages come from PyPI; nginx is unpacked from its Debian package, without root, where apt is at hand, and else
# taken from the PATH by whoever measures. About 3 GB in all. What cannot be had is told, and the others are installed.
set -eu

[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- caterva2 h5grove tiled zarr nginx
failed=0

environment() { # NAME REQUIREMENT ...
    name=$1
    shift
    [ -x "$folder/$name/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder/$name"
    "$folder/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

debian_nginx() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    rm -rf "$folder/nginx"
    mkdir "$folder/nginx"
    (cd "$folder/nginx" && apt-get download -qq nginx && dpkg-deb -x nginx_*.deb . && rm nginx_*.deb)
    "$folder/nginx/usr/sbin/nginx" -v
}

for name in "$@"; do
    echo "== $name"
    case $name in
    caterva2) environment caterva2 'caterva2[server]>=2026.9' ;;
    h5grove) environment h5grove 'h5grove[fastapi]>=4' uvicorn hdf5plugin ;;
    tiled) environment tiled 'tiled[server]>=0.2' h5py hdf5plugin ;;
    zarr) environment zarr 'zarr>=3.1' h5py hdf5plugin ;;
    nginx) debian_nginx ;;
    *) echo "$name is no peer" >&2; false ;;
    esac || { echo "$name could not be installed" >&2; failed=1; }
done
exit $failed
