"""A Kerberos realm of a test's own: MIT's KDC on a port of loopback."""
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

from horn import TMP, free_port, wait_for


class Realm:
    def __init__(self, name="HORN.TEST"):
        self.name = name
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="kdc-", dir=TMP))
        port = free_port()
        (self.dir / "krb5.conf").write_text(f"""[libdefaults]
 default_realm = {name}
 dns_canonicalize_hostname = false
 rdns = false
 dns_lookup_kdc = false
[realms]
 {name} = {{
  kdc = 127.0.0.1:{port}
 }}
""")
        (self.dir / "kdc.conf").write_text(f"""[kdcdefaults]
 kdc_listen = 127.0.0.1:{port}
 kdc_tcp_listen = 127.0.0.1:{port}
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
        self.kdc = subprocess.Popen(["krb5kdc", "-n", "-r", name], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("the KDC", lambda: self.answers(port))

    def answers(self, port):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    def run(self, *words, input=None):
        return subprocess.run(words, env=self.env, input=input, capture_output=True, check=True, timeout=60)

    def user(self, name, word):
        self.run("kadmin.local", "-r", self.name, "-q", f"addprinc -pw {word} {name}")

    def service(self, name, keytab):
        self.run("kadmin.local", "-r", self.name, "-q", f"addprinc -randkey {name}")
        self.run("kadmin.local", "-r", self.name, "-q", f"ktadd -k {keytab} {name}")

    def ticket(self, user, word):
        self.run("kinit", user, input=word.encode() + b"\n")

    def close(self):
        self.kdc.terminate()
        self.kdc.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
