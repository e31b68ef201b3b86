from runyard.adapters.docker.networks import own_id

ID = "5729045c0882f3b4f38084ba50c663ca89d67bb15ce7ccc697758ba15b87c862"
INSIDE = f"""\
1230 1118 0:117 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/AB
1245 1230 254:1 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda1 rw
1246 1230 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw
"""
OUTSIDE = "29 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n"


def test_a_process_in_a_container_sees_which_one() -> None:
    assert ID == own_id(INSIDE)


def test_elsewhere_there_is_none() -> None:
    assert own_id(OUTSIDE) is None
    assert own_id("") is None
