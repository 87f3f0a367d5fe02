from zcat.protocol.attendance import Attendance, AttendanceLimits
from zcat.protocol.status_messages import Presence

OWNERS = [f"{number:032x}" for number in range(30)]


def presence(number=0, lease_s=10.0, host="node"):
    return Presence(OWNERS[number], "subscriber", "1", host, lease_s)


def owners(attendance, now_s=0.0):
    present, _ = attendance.listed(now_s, "", 100)
    return [each.presence.owner for each in present]


def test_who_introduces_itself_is_listed_until_its_lease_is_over():
    attendance = Attendance()
    attendance.heard(presence(1), 0.0)
    attendance.heard(presence(2), 5.0)
    attendance.tick(9.9)
    assert owners(attendance) == [OWNERS[1], OWNERS[2]]
    attendance.tick(10.0)
    assert owners(attendance) == [OWNERS[2]]


def test_each_ping_is_a_new_lease_and_the_latest_word_counts():
    attendance = Attendance()
    for now_s in range(0, 100, 5):
        attendance.heard(presence(host=f"node {now_s}"), float(now_s))
        attendance.tick(float(now_s))
    ((present,), following) = attendance.listed(96.0, "", 10)
    assert (present.presence.host, present.age_s, present.since_s, following) == ("node 95", 1.0, 96.0, None)


def test_who_leaves_is_listed_no_more():
    attendance = Attendance()
    attendance.heard(presence(1), 0.0)
    attendance.heard(presence(1, lease_s=0.0), 1.0)
    attendance.heard(presence(2, lease_s=0.0), 1.0)
    assert owners(attendance) == []
    assert len(attendance) == 0


def test_a_lease_is_no_longer_than_the_limit():
    attendance = Attendance(AttendanceLimits(lease_max_s=20.0))
    attendance.heard(presence(lease_s=1e9), 0.0)
    attendance.tick(20.0)
    assert owners(attendance) == []


def test_beyond_the_limit_nobody_new_is_listed_and_who_is_stays():
    attendance = Attendance(AttendanceLimits(present_max=2))
    for number in (1, 2, 3, 1):
        attendance.heard(presence(number), 0.0)
    assert owners(attendance) == [OWNERS[1], OWNERS[2]]


def test_a_long_list_is_given_in_parts():
    attendance = Attendance()
    for number in reversed(range(25)):
        attendance.heard(presence(number), 0.0)
    found, after = [], ""
    while after is not None:
        part, after = attendance.listed(0.0, after, 10)
        assert len(part) <= 10
        found += [each.presence.owner for each in part]
    assert found == OWNERS[:25]
