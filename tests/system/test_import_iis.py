"""horn-import-iis: the configuration that an IIS 6.0 metabase becomes."""
import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from horn import BUILD, TMP
from test_import_postfix import sections

METABASE = """<?xml version ="1.0"{ENCODING}?>
<configuration xmlns="urn:microsoft-catalog:XML_Metabase_V64_0">
<MBProperty>
<IIsSmtpService	Location ="/LM/SmtpSvc"
		AuthFlags="AuthAnonymous | AuthBasic | AuthNTLM"
		ConnectionTimeout="600"
		HopCount="15"
		MaxOutConnections="1000"
		MaxOutConnectionsPerDomain="100"
		MaxConnections="2000000000"
		SmtpRemoteProgressiveRetry="15,30,60,240"
		SmtpRemoteNDRExpireMinutes="2880"
		SmtpRemoteDelayExpireMinutes="720"
		AdminACL="496344626000000022"
	>
</IIsSmtpService>
<IIsSmtpServer	Location ="/LM/SmtpSvc/3"
		ServerBindings="192.0.2.7:2525:
			192.0.2.8:25:"
		ServerComment="Second server"
		ServerAutoStart="FALSE"
		FullyQualifiedDomainName="two.example"
		DefaultDomain="two.example"
		AuthFlags="AuthAnonymous"
		MaxMessageSize="0"
		MaxSessionSize="0"
		SmartHost="relay.two.example"
		SmartHostType="1"
		RouteUserName="user" RoutePassword="secret-of-route"
		NewThing="x"
	/>
<IIsSmtpServer	Location ="/LM/SmtpSvc/1"
		ServerBindings=":25:"
		ServerComment="Default SMTP Virtual Server"
		ServerAutoStart="TRUE"
		FullyQualifiedDomainName="one.example"
		DefaultDomain="one.example"
		MaxMessageSize="2097152"
		MaxSessionSize="10485760"
		MaxRecipients="100"
		MaxBatchedMessages="20"
		MasqueradeDomain="shown.example"
		EnableReverseDnsLookup="TRUE"
		SendNdrTo="admin@one.example"
		AccessSSLFlags="AccessSSL | AccessSSL128"
		DropDirectory="C:\\Inetpub\\mailroot\\Drop"
		RelayForAuth="0"
		RelayIpList="180000802000008000000000"
	/>
<IIsSmtpDomain	Location ="/LM/SmtpSvc/1/Domain/one.example" RouteAction="16"/>
<IIsSmtpDomain	Location ="/LM/SmtpSvc/1/Domain/alias.example" RouteAction="RouteActionAlias"/>
<IIsSmtpDomain	Location ="/LM/SmtpSvc/1/Domain/*.partner.example" RouteAction="2" RouteActionString="[192.0.2.9]"/>
<IIsSmtpDomain	Location ="/LM/SmtpSvc/1/Domain/doubt.example" RouteAction="16"/>
<IIsSmtpDomain	Location ="/LM/SmtpSvc/3/Domain/far.example" RouteAction="2" RouteActionString="mx.far.example"/>
<IIsWebServer Location ="/LM/W3SVC/1" ServerComment="Web"/>
</MBProperty>
</configuration>
"""
ONE = {"listen": "*:25", "startup": "automatic", "fqdn": "one.example", "default_domain": "one.example", "connection_limit": "unlimited", "connection_timeout": "600s", "hop_limit": "15",
       "outbound_connection_limit": "1000", "outbound_connection_limit_per_domain": "100", "retry_first": "15m", "retry_second": "30m", "retry_third": "60m", "retry_subsequent": "240m",
       "expiry": "2880m", "delay_notification": "720m", "message_size_limit": "2097152B", "session_size_limit": "10485760B", "recipient_limit": "100", "messages_per_connection": "20",
       "masquerade_domain": "shown.example", "reverse_dns_lookup": "yes", "ndr_copy_to": "admin@one.example", "tls": "require", "relay_authenticated": "no", "display_name": "Default SMTP Virtual Server",
       "auth_methods": "anonymous basic integrated"}
THREE = {"listen": "192.0.2.7:2525, 192.0.2.8:25", "startup": "manual", "fqdn": "two.example", "message_size_limit": "unlimited", "smart_host": "relay.two.example", "smart_host_direct_first": "yes",
         "auth_methods": "anonymous", "hop_limit": "15", "display_name": "Second server"}


class Metabase(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="iis-", dir=TMP))
        self.addCleanup(shutil.rmtree, self.dir)

    def imported(self, text, status=0):
        (self.dir / "MetaBase.xml").write_bytes(text)
        done = subprocess.run([BUILD / "horn-import-iis", "-c", self.dir / "horn", "--json", self.dir / "MetaBase.xml"], capture_output=True, timeout=60)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stderr.decode() if status else [json.loads(l) for l in done.stdout.splitlines()]

    def server(self, name):
        return sections((self.dir / f"horn/servers/{name}.conf").read_text())

    def test_servers_and_domains(self):
        """In the encoding of the file as well; what a server does not say it has from the service."""
        for encoding, name in ((' encoding="UTF-8"', "utf-8"), (' encoding="UTF-16"', "utf-16")):
            with self.subTest(name):
                shutil.rmtree(self.dir / "horn", ignore_errors=True)
                rows = self.imported(METABASE.replace("{ENCODING}", encoding).encode(name))
                one, three = self.server("default"), self.server("smtp3")
                self.assertEqual({n: one[""].get(n) for n in ONE}, ONE)
                self.assertEqual({n: three[""].get(n) for n in THREE}, THREE)
                del one[""], three[""]
                self.assertEqual(one, {"alias.example": {"type": "alias"}, "*.partner.example": {"type": "remote", "route": "[192.0.2.9]"}})
                self.assertEqual(three, {"far.example": {"type": "remote", "route": "mx.far.example"}})
                for fate, what in (("differs", "default: domain doubt.example"), ("none", "default: RelayIpList"), ("none", "smtp3: NewThing"), ("none", "smtp3: RoutePassword"),
                                   ("differs", "default: DropDirectory"), ("none", "smtp3: AdminACL")):
                    self.assertTrue([r for r in rows if r["fate"] == fate and r["what"].startswith(what)], what)
                self.assertNotIn("secret-of-route", json.dumps(rows))
                check = subprocess.run([BUILD / "hornconf", "-c", self.dir / "horn", "check"], capture_output=True)
                self.assertEqual(check.returncode, 0, check.stderr)

    def test_what_is_no_metabase(self):
        """Refused with the place; nothing is written, no other file is read for it."""
        self.assertRegex(self.imported(METABASE.replace("{ENCODING}", "").replace('HopCount="15"', 'HopCount="15').encode(), 65), r"MetaBase.xml:\d+: .")
        self.assertIn("no IIsSmtpServer", self.imported(b"<configuration/>", 65))
        self.imported(b"", 65)
        self.assertFalse((self.dir / "horn").exists())
        (self.dir / "secret").write_text("not for you")
        text = METABASE.replace("{ENCODING}", "").replace("<configuration ", f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{self.dir}/secret">]><configuration ').replace("Second server", "&e;")
        (self.dir / "MetaBase.xml").write_text(text)
        done = subprocess.run([BUILD / "horn-import-iis", "-c", self.dir / "horn", "--report", self.dir / "MetaBase.xml"], capture_output=True, timeout=60)
        self.assertNotIn(b"not for you", done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
