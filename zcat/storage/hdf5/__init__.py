"""HDF5 files as trees of datasets. Files are opened by worker processes only, which may die of them."""
