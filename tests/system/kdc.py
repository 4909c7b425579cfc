"""A Kerberos realm of a test's own: MIT's KDC on a port of loopback."""
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

from horn import TMP, free_port, wait_for


class Realm:
    """address: where it listens; by_dns: krb5.conf names no KDC, and it listens on port 88."""

    def __init__(self, name="HORN.TEST", address="127.0.0.1", by_dns=False):
        self.name = name
        self.address = address
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="kdc-", dir=TMP))
        os.chmod(self.dir, 0o755) # krb5.conf is everybody's
        self.port = port = 88 if by_dns else free_port()
        (self.dir / "krb5.conf").write_text(f"""[libdefaults]
 default_realm = {name}
 dns_canonicalize_hostname = false
 rdns = false
 dns_lookup_kdc = false
""" + ("" if by_dns else f"""[realms]
 {name} = {{
  kdc = {address}:{port}
 }}
"""))
        (self.dir / "kdc.conf").write_text(f"""[kdcdefaults]
 kdc_listen = {address}:{port}
 kdc_tcp_listen = {address}:{port}
[realms]
 {name} = {{
  database_name = {self.dir}/principal
  key_stash_file = {self.dir}/stash
  acl_file = {self.dir}/acl
 }}
[logging]
 kdc = FILE:{self.dir}/log
""")
        self.env = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin", "KRB5_CONFIG": str(self.dir / "krb5.conf"), "KRB5_KDC_PROFILE": str(self.dir / "kdc.conf"),
                    "KRB5CCNAME": f"FILE:{self.dir}/cc"}
        self.run("kdb5_util", "create", "-s", "-P", "master", "-r", name)
        self.start()

    def start(self):
        self.kdc = subprocess.Popen(["krb5kdc", "-n", "-r", self.name], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("the KDC", self.answers)

    def stop(self):
        self.kdc.terminate()
        self.kdc.wait()

    def answers(self):
        with socket.socket() as s:
            return s.connect_ex((self.address, self.port)) == 0

    def requests(self, kind, name):
        """How many requests of a kind (AS_REQ, TGS_REQ) were granted to a name."""
        return sum(f"{kind} " in l and "ISSUE" in l and name in l for l in (self.dir / "log").read_text().splitlines())

    def run(self, *words, input=None):
        return subprocess.run(words, env=self.env, input=input, capture_output=True, check=True, timeout=60)

    def user(self, name, word, options=""):
        self.run("kadmin.local", "-r", self.name, "-q", f"addprinc {options} -pw {word} {name}")

    def service(self, name, keytab):
        self.run("kadmin.local", "-r", self.name, "-q", f"addprinc -randkey {name}")
        self.run("kadmin.local", "-r", self.name, "-q", f"ktadd -k {keytab} {name}")

    def ticket(self, user, word):
        self.run("kinit", user, input=word.encode() + b"\n")

    def close(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
