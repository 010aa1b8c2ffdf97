"""A disk that a test breaks: tests/drivers/disk, preloaded into a daemon or a cluster.

    disk = Disk(world, folder)          # of what is under `folder`
    d.added = disk.environment    or    cluster.environment = disk.environment,  before it starts
    disk.set(FULL); ...; disk.heal()
"""
import mmap
import os
import struct

from daemon import BUILD

FULL, READ_ONLY, SYNC_FAILS, SYNC_SLOW = 1, 2, 4, 8
NAMES = {FULL: "full", READ_ONLY: "read only", SYNC_FAILS: "fsync fails", SYNC_SLOW: "slow fsync"}


class Disk:
    count = 0

    def __init__(self, world, folder):
        Disk.count += 1
        path = os.path.join(world.folder, "disk%d" % Disk.count)
        with open(path, "wb") as file:
            file.write(b"\0" * 4096)
        os.chmod(path, 0o666)  # clusters run as another user
        with open(path, "r+b") as file:
            self.control = mmap.mmap(file.fileno(), 4096)
        self.environment = {
            "LD_PRELOAD": os.path.abspath(os.path.join(BUILD, "tests", "libfaulty_disk.so")),
            "FAULTY_DISK_PATH": os.path.abspath(folder), "FAULTY_DISK_CONTROL": path,
        }

    def set(self, faults, slow_ms=0):
        self.control[4:8] = struct.pack("=i", slow_ms)
        self.control[0:4] = struct.pack("=i", faults)

    def heal(self):
        self.set(0)

    @property
    def struck(self):
        """Calls that were failed or slowed so far: a test that struck nothing proves nothing."""
        return struct.unpack("=i", self.control[8:12])[0]
