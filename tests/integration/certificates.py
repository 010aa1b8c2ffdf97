"""Certificates for the tests of TLS, made with the openssl program: an authority, and what it signs."""
import os
import ssl
import subprocess

import cluster


def _openssl(*arguments, **options):
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError("openssl %s: %s" % (" ".join(arguments), done.stderr))
    return done.stdout


def _new_key(path):
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
    os.chmod(path, 0o600)


class Authority:
    """An authority in a folder of its own: ca.crt, ca.key, and NAME.crt, NAME.key of each that it signs."""

    def __init__(self, folder, name="ca"):
        self.folder = os.path.join(folder, "certificates-" + name)
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o755)
        self.key, self.cert = self.path("ca.key"), self.path("ca.crt")
        _new_key(self.key)
        _openssl("req", "-x509", "-new", "-key", self.key, "-subj", "/CN=authority " + name, "-days", "2", "-out", self.cert)
        os.chmod(self.cert, 0o644)

    def path(self, name):
        return os.path.join(self.folder, name)

    def sign(self, name, common_name=None, alternatives=None, days=2, owner=None):
        """Returns (certificate, key) as paths. A negative number of days: it has expired."""
        cert, key, request = self.path(name + ".crt"), self.path(name + ".key"), self.path(name + ".csr")
        _new_key(key)
        _openssl("req", "-new", "-key", key, "-subj", "/CN=" + (common_name or name), "-out", request)
        extensions = self.path(name + ".ext")
        with open(extensions, "w") as file:
            file.write("subjectAltName=%s\n" % alternatives if alternatives else "")
        _openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", str(days),
                 "-extfile", extensions, "-out", cert)
        os.chmod(cert, 0o644)
        if owner == "cluster":
            cluster.own(key)
        return cert, key

    def revoke(self, name):
        """Returns the path of a list that revokes NAME.crt."""
        config, index, crl = self.path("ca.cnf"), self.path("index.txt"), self.path("ca.crl")
        with open(config, "w") as file:
            file.write("[ca]\ndefault_ca=d\n[d]\ndatabase=%s\ndefault_md=sha256\ndefault_crl_days=2\n" % index)
        open(index, "a").close()
        _openssl("ca", "-config", config, "-keyfile", self.key, "-cert", self.cert, "-revoke", self.path(name + ".crt"))
        _openssl("ca", "-config", config, "-keyfile", self.key, "-cert", self.cert, "-gencrl", "-out", crl)
        return crl

    def client(self, cert=None, protocol="postgresql"):
        """A context of Python's ssl that trusts this authority; cert: (certificate, key) to show."""
        context = ssl.create_default_context(cafile=self.cert)
        context.check_hostname = False
        if protocol:
            context.set_alpn_protocols([protocol])
        if cert:
            context.load_cert_chain(*cert)
        return context
