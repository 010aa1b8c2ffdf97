"""What the tests of TLS stand in: clusters, a daemon and clients with certificates of one authority."""
import socket
import struct
import threading

import pg
from certificates import Authority

SSL_REQUEST = struct.pack("!ii", 8, pg.SSL_REQUEST)
GSSENC_REQUEST = struct.pack("!ii", 8, pg.GSSENC_REQUEST)


class Scene:
    """A pair whose servers speak TLS, and a daemon that does, all with certificates of one authority."""

    def __init__(self, world, start=True, pair=None, listen=None, side=None, servers=True, binaries=None, **settings):
        self.world, self.ca = world, Authority(world.folder)
        made = {}
        for name in ("blue", "green"):
            cert, key = self.ca.sign(name, alternatives="DNS:%s.db,DNS:localhost,IP:127.0.0.1" % name, owner="cluster")
            made[name] = dict(ssl="on", ssl_cert_file=cert, ssl_key_file=key, ssl_ca_file=self.ca.cert) if servers else {}
        pair = dict(pair or {})
        hba = pair.pop("hba", None)
        arguments = {"hba": hba} if hba else {}
        world.blue = world.cluster("blue", binaries=binaries, **arguments, **made["blue"], **pair)
        world.green = world.cluster("green", new=True, **arguments, **made["green"], **pair)
        world.blue.query("create role app login password 'secret'", "postgres")
        world.blue.query("create database app owner app", "postgres")
        self.pair = self.ca.sign("proxy", "localhost", "DNS:localhost,DNS:proxy.example,IP:127.0.0.1")
        listen = {"mode": "prefer", "cert": self.pair[0], "key": self.pair[1], **(listen or {})}
        side = {"mode": "verify-ca", "ca": self.ca.cert} if side is None else side
        self.daemon = world.daemon(start=start, listen={"tls": listen},
                                   sides={name: {"tls": side} for name in ("blue", "green")}, **settings)

    @property
    def address(self):
        return self.daemon.address

    def connect(self, cert=None, protocol="postgresql", **arguments):
        made = pg.Connection(self.address, tls=self.ca.client(cert, protocol), server_name="localhost", **arguments)
        self.world.connections.append(made)
        return made

    def psql(self, conninfo, sql="select 1", **environment):
        return self.world.psql(self.daemon, ["-Atc", sql, conninfo], environment=environment)


def in_tls(connection):
    """The backend of that session has TLS."""
    return connection.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == "t"


def relayed(address, client_to_proxy, proxy_to_client=None):
    """A man in the middle on a port of his own: what passes goes through the functions. Returns its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source, target, change):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                for piece in (change(data) if change else [data]):
                    target.sendall(piece)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(address)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=carry, args=(client, server, client_to_proxy), daemon=True).start()
            threading.Thread(target=carry, args=(server, client, proxy_to_client), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()


def bytewise(data):
    return [data[i:i + 1] for i in range(len(data))]
