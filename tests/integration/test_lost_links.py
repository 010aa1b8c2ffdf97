"""Connections to a server that die without a word: what a client waits for on one ends in bounded time, and a server that
lives and is only slow is never taken for lost."""
import threading
import time

import pg
from namespaces import Namespaces
from network import Scene

LOST_AFTER_S = 2
BIG = 24 * 1024 * 1024  # more than the kernels on the way keep


def open_clients(world, count, *statements):
    clients = [world.connect(timeout=120) for _ in range(count)]
    for client in clients:
        for sql in statements:
            client.query(sql)
    return clients


def test_server_that_does_not_read(world):
    """It sleeps in one statement while the next one comes: its window is closed for long, but its machine answers."""
    scene = Scene(world, tcp={"servers": {"lost_after": "%ds" % LOST_AFTER_S}})
    client = world.connect(timeout=120)
    began = time.monotonic()
    client.send(pg.query("select pg_sleep(%d)" % (5 * LOST_AFTER_S)))
    sender = threading.Thread(target=client.send, args=(pg.query("select 'read' /* %s */" % ("x" * BIG)),), daemon=True)
    sender.start()
    client.results()
    assert time.monotonic() - began >= 5 * LOST_AFTER_S
    assert client.results()[0] == [("read",)]
    assert "server_link_lost" not in scene.d.log_text()
    client.close()


def test_server_that_swallows(world):
    """A firewall forgets the connections to the active side: each session that waits for an answer is told, those that
    wait for nothing stay until they do, and new clients are served meanwhile."""
    scene = Scene(world, Namespaces(world), tcp={"servers": {"lost_after": "%ds" % LOST_AFTER_S}}, timeouts={"in_doubt": "3s"})
    d = scene.d
    idle, = open_clients(world, 1)
    asking, = open_clients(world, 1)
    in_block, committing = open_clients(world, 2, "begin", "update account set note = 'lost' where id = 0")
    scene.inject("forgotten", "source", "blue")
    began = time.monotonic()
    asking.send(pg.query("select 1"))
    in_block.send(pg.query("select 2"))
    committing.send(pg.query("commit"))
    for client, states in ((asking, ("08007",)), (in_block, ("08006",)), (committing, ("08006", "08007"))):
        try:
            client.results()
            raise AssertionError("an answer came from nowhere")
        except pg.PgError as error:
            assert error.sqlstate in states and "acknowledged" in str(error), error
    print("the last of them was told after %.1f s" % (time.monotonic() - began))
    with pg.Connection(d.address) as client:
        assert client.value("select 1") == "1"
    d.wait_status(lambda s: s["sides"]["blue"]["reachable"] and s["active"] == "blue", 60, "blue answers by new connections")
    scene.net.heal()
    assert idle.value("select 1") == "1"
    assert scene.settle_anew() == "blue"


test_server_that_swallows.timeout = 300
