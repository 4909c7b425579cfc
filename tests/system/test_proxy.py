"""Front ends that speak the PROXY protocol (MISSION E7), named ones only."""
import re
import socket
import struct
import unittest

from horn import Client, Horn, Sink, free_port, remote, wait_for

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."
V2 = b"\r\n\r\n\0\r\nQUIT\n"


def v1(source):
    return f"PROXY TCP4 {source} 127.0.0.1 1234 25\r\n".encode()


def v2(source):
    return V2 + b"\x21\x11\0\x0c" + socket.inet_aton(source) + socket.inet_aton("127.0.0.1") + struct.pack(">HH", 1234, 25)


class Proxy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sink = Sink()
        cls.h = Horn(["test_mode=yes"], ["proxy_clients=127.0.0.2", "relay_exceptions=198.51.100.0/24", "access_exceptions=203.0.113.9", "trusted_networks=", "client_connection_limit=2"], [remote(cls.sink)])
        cls.h.start()

    @classmethod
    def tearDownClass(cls):
        cls.h.__exit__(None)
        cls.sink.close()

    def connect(self, header, pieces=1):
        s = socket.create_connection(("127.0.0.1", self.h.port), 30, ("127.0.0.2", 0))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = -(-len(header) // pieces) if header else 1
        for i in range(0, len(header), size):
            s.sendall(header[i:i + size])
        self.addCleanup(s.close)
        return s

    def greeting(self, header, pieces=1):
        with self.connect(header, pieces) as s:
            data = b""
            try:
                while not data.endswith(b"\n") and (part := s.recv(1000)):
                    data += part
            except ConnectionResetError:
                pass
            return data.decode()

    def test_it_is_the_client_that_counts(self):
        """Received, relaying, access and limits go by the address that is said."""
        for header in (v1("198.51.100.7"), v2("198.51.100.7")):
            before = len(self.sink.messages)
            s = self.connect(header, len(header))
            f = s.makefile("rwb", buffering=0)
            self.assertTrue(f.readline().startswith(b"220"))
            for line in (b"HELO x.example", b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@sink.example>", b"DATA"):
                f.write(line + b"\r\n")
                self.assertIn(f.readline()[:1], (b"2", b"3"), line)
            f.write(TEXT + b"\r\n.\r\n")
            self.assertTrue(f.readline().startswith(b"250"))
            wait_for("the mail", lambda: len(self.sink.messages) == before + 1)
            self.assertIn(b"Received: from x.example ([198.51.100.7])", self.sink.messages[-1][2])
        self.assertTrue(self.greeting(v1("203.0.113.9")).startswith("554 5.7.1"))
        held = [self.connect(v1("192.0.2.77")) for _ in range(2)]
        for s in held:
            self.assertTrue(s.recv(100).startswith(b"220"))
        self.assertTrue(self.greeting(v2("192.0.2.77")).startswith("421 4.7.0"))
        self.assertTrue(self.greeting(v2("192.0.2.78")).startswith("220"))

    def test_a_proxy_that_speaks_for_itself(self):
        """UNKNOWN and LOCAL: the connection is the proxy's own, such as its health check."""
        for header in (b"PROXY UNKNOWN\r\n", V2 + b"\x20\0\0\0"):
            self.assertTrue(self.greeting(header).startswith("220"))

    def test_what_is_no_header_is_closed_without_a_word(self):
        before = self.h.log().count("proxy_refused")
        for header in (b"EHLO x.example\r\n", b"PROXY TCP4 nonsense\r\n", V2 + b"\x31\x11\0\0", b"PROXY " + b"x" * 200):
            self.assertEqual(self.greeting(header), "")
        self.assertEqual(self.greeting(b"PROXY TCP4 192.0.2.1"), "") # no more comes
        wait_for("lines", lambda: self.h.log().count("proxy_refused") == before + 5)
        self.assertIn("reason=no PROXY header in time", self.h.log())

    def test_from_nobody_else(self):
        """Who is not named can't say who it is: to the server it is a command that it does not know."""
        with Client(self.h.port) as c:
            self.assertTrue(c.ask(v1("198.51.100.7").decode().strip()).startswith("500"))
            c.ask("EHLO x.example")
            c.ask("MAIL FROM:<a@example.org>")
            self.assertTrue(c.ask("RCPT TO:<b@elsewhere.example>").startswith("550 5.7.1"))


class XClient(unittest.TestCase):
    def test_limits_and_relaying_go_by_the_address(self):
        """front counts the client that is named, and believes named front ends alone."""
        with Sink() as sink, Horn(server=["xclient_clients=127.0.0.2", "relay_exceptions=198.51.100.0/24", "access_exceptions=203.0.113.9", "trusted_networks=", "client_connection_limit=2"], domains=[remote(sink)]) as h:
            def ask(c, address):
                c.ask("EHLO proxy.example")
                return c.ask(f"XCLIENT ADDR={address} NAME=mail.example")
            held = [Client(h.port, source="127.0.0.2") for _ in range(2)]
            for c in held:
                self.assertTrue(ask(c, "192.0.2.77").startswith("220"))
            for address, code in (("192.0.2.77", "421"), ("203.0.113.9", "554"), ("IPV6:2001:db8::1", "220")):
                with Client(h.port, source="127.0.0.2") as c: # there is room for it: the two are another's
                    self.assertTrue(ask(c, address).startswith(code), address)
            for c in held:
                c.s.close()
            with Client(h.port, source="127.0.0.2") as c:
                ask(c, "198.51.100.7")
                c.send("a@example.org", "b@sink.example", TEXT)
                wait_for("the mail", lambda: len(sink.messages) == 1)
                self.assertIn(b"([198.51.100.7])", sink.messages[0][2])
            with Client(h.port) as c:
                self.assertTrue(ask(c, "198.51.100.7").startswith("550 5.7.0"))


if __name__ == "__main__":
    unittest.main()
