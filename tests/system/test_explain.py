"""posthorn explain: what it says is what the next attempt does."""
import json
import random
import re
import socket
import subprocess
import unittest

from horn import BUILD, Horn, Sink, wait_for
from nsd import Zone

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."
ALIVE, DEAD = range(2, 7), range(7, 10) # 127.0.1.N
CASES = 50


def zone():
    """Domains of many shapes; of the hosts some are alive, some dead, some have no address."""
    draw = random.Random(5321)
    lines = ["$ORIGIN horntest.", "$TTL 60", "@ SOA ns hostmaster 1 3600 600 86400 60", "@ NS ns", "ns A 127.0.0.1"]
    lines += [f"h{n} A 127.0.1.{n}" for n in (*ALIVE, *DEAD)] + ["h20 TXT nothing", "h21 CNAME h2"]
    for i in range(CASES):
        shape = i % 10
        if shape == 0:
            lines.append(f"d{i} A 127.0.1.{draw.choice(ALIVE)}")
        elif shape == 1:
            lines.append(f"d{i} MX 0 .")
        elif shape == 2:
            lines.append(f"d{i} MX 10 h20")
        elif shape == 3:
            lines += [f"d{i} MX 10 mx.horn.example.", f"d{i} MX 20 h2"]
        elif shape == 4:
            lines.append(f"d{i} CNAME d{i - 4}")
        elif shape != 5: # 5: no such domain
            hosts = draw.sample([*ALIVE, *DEAD, 20, 21], draw.randint(1, 4))
            lines += [f"d{i} MX {10 * (k + 1)} h{n}" for k, n in enumerate(hosts)]
    return "\n".join(lines) + "\n"


class Explain(Zone):
    zone = zone()

    def explain(self, h, *args, **kw):
        return h.run("posthorn", "-c", str(h.dir), "explain", *args, **kw)

    def test_its_choice_is_what_the_next_attempt_does(self):
        self.serve("zone.signed")
        with Sink(host="127.0.1.2") as first:
            sinks = {f"127.0.1.{n}": Sink(host=f"127.0.1.{n}", port=first.port) for n in ALIVE if n != 2}
            sinks["127.0.1.2"] = first
            try:
                self.compare(sinks, first)
            finally:
                for s in sinks.values():
                    s.close()

    def compare(self, sinks, first):
        with self.horn(first) as h, h.client() as c:
            said = {}
            for i in range(CASES):
                name = f"u@d{i}.horntest"
                said[name] = json.loads(self.explain(h, "--json", name).stdout)
                self.assertIn("rules", said[name])
            for i, name in enumerate(said):
                c.send("back@local.example", name, TEXT, ehlo=i == 0)
            def settled():
                done = sum(len(s.messages) for s in sinks.values()) + len(h.drop())
                return done + sum(m["state"] == "deferred" for m in h.messages()) >= CASES
            wait_for("every message's fate", settled, 40)
            got = {re.search("<(.*)>", m[1][0])[1]: address for address, s in sinks.items() for m in s.messages}
            reports = {re.search(b"Final-Recipient: rfc822;(.*)\r", p.read_bytes())[1].decode():
                       re.search(b"Status: (.*)\r", p.read_bytes())[1].decode() for p in h.drop()}
            waiting = {r["address"]: r["reason"] for m in h.messages() for r in m["recipients"]}
            for name, e in said.items():
                with self.subTest(name=name, said=e.get("targets", e.get("status"))):
                    alive = [re.search(r"\[(.*)\]", t)[1] for t in e.get("targets", ())]
                    alive = [a for a in alive if a in sinks]
                    if alive:
                        self.assertEqual(got.get(name), alive[0])
                    elif "targets" in e:
                        self.assertIn(e["targets"][-1], waiting[name])
                    elif e["outcome"] == "deferred":
                        self.assertIn(e["reason"], waiting[name])
                    else:
                        self.assertEqual(reports.get(name), e["status"])

    def test_rules_relay_and_bad_input(self):
        self.serve("zone.signed")
        with Sink() as sink, self.horn(sink) as h:
            h.conf("domain", "add", "*.wild.example", "type=remote", "route=[192.0.2.9]:26, h2.horntest", "outbound_tls=require", "relay=never")
            h.run("posthorn", "-c", str(h.dir), "reload")
            text = self.explain(h, "--client", "192.0.2.1", "--from", "me@x.example", "b@a.wild.example").stdout.decode()
            for part in ("yes REMOTE_ROUTE", "no  ALIAS_DOMAIN", "*.wild.example", "1. 192.0.2.9[192.0.2.9]:26", "2. h2.horntest[127.0.1.2]:", "require",
                         "refused with 550 5.7.1: the remote domain's relay = never", "me@x.example"):
                self.assertIn(part, text)
            self.assertNotIn("SMART_HOST", text) # rules behind the one that decides were not tried
            self.assertIn("taken: a domain of this server", self.explain(h, "--client", "192.0.2.1", "a@local.example").stdout.decode())
            for bad in (("no address",), ("--client", "nonsense", "a@b.example"), ()):
                done = self.explain(h, *bad, check=False)
                self.assertIn(done.returncode, (64, 65), bad)
                self.assertTrue(done.stderr)
            h.stop()
            self.assertIn("the service is not running", self.explain(h, "a@d0.horntest").stdout.decode())
            h.start()

    def test_a_reload_ends_what_is_being_explained(self):
        """Its sections go with the old configuration; the name server never answers."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            silent.settimeout(20)
            with Horn(["test_mode=yes", f"dns_servers=127.0.0.1@{silent.getsockname()[1]}"], domains=[("far.example", "type=remote", "route=mx.silent.example")]) as h:
                asked = subprocess.Popen([BUILD / "posthorn", "-c", h.dir, "explain", "a@far.example"], stdout=subprocess.PIPE, text=True)
                self.addCleanup(asked.wait)
                silent.recv(2000)
                h.conf("domain", "remove", "far.example")
                h.run("posthorn", "-c", str(h.dir), "reload")
                said, _ = asked.communicate(timeout=20)
                self.assertIn("the configuration is being read anew", said)
                self.assertIn("taken: a domain", self.explain(h, "--client", "127.0.0.1", "a@local.example").stdout.decode())


if __name__ == "__main__":
    unittest.main()
