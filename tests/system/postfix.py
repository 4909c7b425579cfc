"""A Postfix of its own directory and port, as next hop or client; root starts it."""
import os
import pathlib
import shutil
import subprocess
import tempfile

from horn import TMP, free_port, wait_for

SERVICES = ["pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr", "tlsmgr unix - - n 1000? 1 tlsmgr",
            "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce", "defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce",
            "smtp unix - - n - - smtp", "relay unix - - n - - smtp", "showq unix n - n - - showq", "error unix - - n - - error",
            "retry unix - - n - - error", "anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache", "postlog unix-dgram n - n - 1 postlogd", "proxymap unix - - n - - proxymap"]


class Postfix:
    def __init__(self, relay_port, *settings, services=()):
        """Sends all that it takes to relay_port on 127.0.0.1; services: more lines of master.cf."""
        if not shutil.which("postfix"):
            raise AssertionError("this test needs Postfix, as make setup check brings it")
        self.dir = d = pathlib.Path(tempfile.mkdtemp(prefix="pf-", dir=TMP))
        self.port = free_port()
        os.chmod(d, 0o755)
        for name in ("conf", "queue", "data", "log"):
            (d / name).mkdir()
        shutil.chown(d / "data", "postfix")
        own = [f"queue_directory = {d}/queue", f"data_directory = {d}/data", f"maillog_file = {d}/log/mail.log", f"maillog_file_prefixes = {d}", f"relayhost = [127.0.0.1]:{relay_port}"]
        usual = ["compatibility_level = 3.6", "myhostname = pf.example", "mydestination =", "mynetworks = 127.0.0.0/8", "inet_interfaces = 127.0.0.1", "inet_protocols = ipv4",
                 "alias_maps =", "alias_database =", "smtpd_relay_restrictions = permit_mynetworks, reject", "smtp_host_lookup = native", "smtp_dns_support_level = disabled"]
        (d / "conf/main.cf").write_text("\n".join([*usual, *own, *settings]) + "\n")
        (d / "conf/master.cf").write_text(f"127.0.0.1:{self.port} inet n - n - - smtpd\n" + "\n".join([*services, *SERVICES]) + "\n")
        done = subprocess.run(["postfix", "-c", d / "conf", "start"], capture_output=True, timeout=60)
        if done.returncode:
            raise AssertionError(done.stderr)

    def log(self):
        try:
            return (self.dir / "log/mail.log").read_text()
        except OSError:
            return ""

    def stop(self):
        subprocess.run(["postfix", "-c", self.dir / "conf", "stop"], capture_output=True, timeout=60)
        pid = self.dir / "queue/pid/master.pid"
        wait_for("Postfix ended", lambda: not pid.exists() or not pathlib.Path(f"/proc/{pid.read_text().strip()}").exists())
        shutil.rmtree(self.dir, ignore_errors=True)
