"""Dovecot's auth service alone, of its own directory; root starts it."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from horn import TMP, wait_for


class DovecotAuth:
    """users: name to password; socket: where its auth protocol is spoken."""

    def __init__(self, users, mechanisms="plain login scram-sha-256", more=""):
        if not shutil.which("dovecot"):
            raise AssertionError("this test needs Dovecot, as make setup check brings it")
        self.dir = d = pathlib.Path(tempfile.mkdtemp(prefix="sasl-", dir=TMP))
        os.chmod(d, 0o755)
        self.socket = d / "auth"
        (d / "users").write_text("".join(f"{u}:{{PLAIN}}{p}\n" for u, p in users.items()))
        (d / "conf").write_text(f"""base_dir = {d}/run
log_path = {d}/log
protocols =
ssl = no
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
{more}
passdb {{
  driver = passwd-file
  args = {d}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
service auth {{
  unix_listener {d}/auth {{
    mode = 0666
  }}
}}
""")
        self.start()

    def start(self):
        self.process = subprocess.Popen(["dovecot", "-F", "-c", self.dir / "conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_for("Dovecot", self.socket.exists)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        try:
            os.killpg(self.process.pid, signal.SIGKILL) # its auth process stays while it has clients
        except ProcessLookupError:
            pass
        self.socket.unlink(missing_ok=True)

    def close(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
