"""Who may send through this server: the classic ways to talk a server into relaying lead nowhere (MISSION C5)."""
import unittest

from horn import Horn, Sink, wait_for

OWN, ELSE = "local.example", "elsewhere.example"
# sender, recipient.  What is taken is this server's own mail, whatever its local part looks like.
PROBES = (
    ("a@b.example", f"u@{ELSE}"),                          # plainly
    ("", f"u@{ELSE}"),                                     # as a report
    (f"u@{OWN}", f"u@{ELSE}"),                             # as one of ours
    ("u@[127.0.0.1]", f"u@{ELSE}"),                        # as one of ours by address
    ("u@localhost", f"u@{ELSE}"),
    ("a@b.example", f"u%{ELSE}@{OWN}"),                    # percent hack
    ("a@b.example", f"u%{ELSE}@[127.0.0.1]"),
    ("a@b.example", f"\"u%{ELSE}\"@{OWN}"),
    ("a@b.example", f"\"u%{ELSE}\""),
    ("a@b.example", f"u%{ELSE}"),
    ("a@b.example", f"\"u@{ELSE}\""),                      # quoted at-signs
    ("a@b.example", f"\"u@{ELSE}\"@{OWN}"),
    ("a@b.example", f"\"u@{ELSE}\"@[127.0.0.1]"),
    ("a@b.example", f"u@{ELSE}@{OWN}"),                    # two at-signs
    ("a@b.example", f"u@{ELSE}@[127.0.0.1]"),
    ("a@b.example", f"u@{OWN}@{ELSE}"),
    ("a@b.example", f"@{OWN}:u@{ELSE}"),                   # source routes
    ("a@b.example", f"@[127.0.0.1]:u@{ELSE}"),
    ("a@b.example", f"@{ELSE}:u@{OWN}"),
    ("a@b.example", f"@{OWN},@{ELSE}:u@{ELSE}"),
    ("a@b.example", f"{ELSE}!u"),                          # bang paths
    ("a@b.example", f"{ELSE}!u@{OWN}"),
    ("a@b.example", f"{ELSE}!u@[127.0.0.1]"),
    ("a@b.example", f"{OWN}!{ELSE}!u@{OWN}"),
    ("a@b.example", "u@[192.0.2.1]"),                      # literals of others, of forms that may be ours
    ("a@b.example", "u@[IPv6:2001:db8::1]"),
    ("a@b.example", "u@[IPv6:::ffff:192.0.2.1]"),
    ("a@b.example", f"u@{OWN}.{ELSE}"),                    # names that begin or end as ours do
    ("a@b.example", f"u@{ELSE}{OWN}"),
    ("a@b.example", f"u@{ELSE}.{OWN}"),
    ("a@b.example", f"u@{ELSE} {OWN}"),
    ("a@b.example", f"u@{ELSE}\0@{OWN}"),
    ("a@b.example", f"u@{ELSE}\t"),
    ("a@b.example", f"<u@{ELSE}>"),
    ("a@b.example", f"u@{ELSE}>,<u@{OWN}"),
)


class Relay(unittest.TestCase):
    def test_no_probe_leads_out(self):
        with Sink() as sink, Horn(server=[f"smart_host=[127.0.0.1]:{sink.port}", "error_limit=unlimited", "error_soft_limit=unlimited", "trusted_networks="]) as h:
            taken = []
            for greeting in ("EHLO probe.example", "HELO probe.example", f"EHLO {OWN}", "EHLO [127.0.0.1]"):
                with h.client() as c:
                    c.ask(greeting)
                    for sender, recipient in PROBES:
                        c.ask(f"MAIL FROM:<{sender}>")
                        reply = c.ask(f"RCPT TO:<{recipient}>")
                        if reply.startswith("250"):
                            taken.append(recipient)
                            c.ask("DATA")
                            c.say(b"Subject: probe\r\n\r\nx\r\n.\r\n")
                            self.assertTrue(c.hear().startswith("250"))
                        else:
                            self.assertIn(reply[:3], ("550", "501", "500", "503", "555"), recipient)
                            c.ask("RSET")
            self.assertEqual([r for r in taken if r.endswith(f"@{ELSE}") or r == f"u@{ELSE}"], [])
            wait_for("what was taken is here", lambda: len(h.drop()) == len(taken))
            self.assertEqual(h.messages(), [])
            self.assertEqual((sink.messages, sink.connections), ([], 0))
            receivers = [p.read_text().split("X-Receiver: ")[1].split("\n")[0].strip(" <>\r") for p in h.drop()]
            self.assertEqual([r for r in receivers if r.rsplit("@", 1)[1] not in (OWN, "[127.0.0.1]")], [])

    def test_one_that_may_relay_leads_out(self):
        """The control: the same from a listed client arrives."""
        with Sink() as sink, Horn(server=[f"smart_host=[127.0.0.1]:{sink.port}", "relay_exceptions=127.0.0.1"]) as h, h.client() as c:
            c.send("a@b.example", f"u@{ELSE}", b"Subject: probe\r\n\r\nx")
            wait_for("it is out", lambda: len(sink.messages) == 1)


if __name__ == "__main__":
    unittest.main()
