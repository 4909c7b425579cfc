/* tlsrpt: the words of reports about TLS (RFC 8460).  No I/O. */
#ifndef STS_TLSRPT_H
#define STS_TLSRPT_H

#include "base/base.h"

/* 4.3: what became of a session, or of what is needed before it. */
#define SESSION_RESULTS(X) X(SUCCESS, "") X(STARTTLS_NOT_SUPPORTED, "starttls-not-supported") X(HOST_MISMATCH, "certificate-host-mismatch") \
	X(EXPIRED, "certificate-expired") X(NOT_TRUSTED, "certificate-not-trusted") X(VALIDATION_FAILURE, "validation-failure") \
	X(TLSA_INVALID, "tlsa-invalid") X(DNSSEC_INVALID, "dnssec-invalid") X(DANE_REQUIRED, "dane-required") \
	X(STS_FETCH_ERROR, "sts-policy-fetch-error") X(STS_INVALID, "sts-policy-invalid") X(STS_WEBPKI_INVALID, "sts-webpki-invalid")
enum session_result {
#define SESSION_RESULT(name, text) RESULT_##name,
	SESSION_RESULTS(SESSION_RESULT)
#undef SESSION_RESULT
	RESULT_COUNT
};
const char *session_result_name(enum session_result r);

/* 4.4: which kind of policy was looked at. */
enum policy_kind { KIND_NONE, KIND_TLSA, KIND_STS, POLICY_KINDS };
const char *policy_kind_name(enum policy_kind k);

/* 3: is a TXT record one of this kind?  *rua: its addresses, separated by commas; empty: of no use. */
bool tlsrpt_parse_record(struct span record, struct span *rua);
/* The next address that can be used: mailto: its mail address, https: the whole URL and its host.  False: no more. */
enum rua_kind { RUA_MAIL, RUA_HTTPS };
bool tlsrpt_next(struct span *rua, enum rua_kind *kind, struct span *address, struct span *host);

#endif
