#include "smtp/smtp.h"

#include <idn2.h>
#include <stdio.h>
#include <string.h>

bool text_is_ascii(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((s.at[i] & 0x80) != 0)
			return false;
	return true;
}

int domain_to_ascii(struct span domain, char out[256])
{
	char text[1024], *ascii = NULL;
	if (domain.n >= sizeof text)
		return EINVAL;
	memcpy(text, domain.at, domain.n);
	text[domain.n] = '\0';
	if (strlen(text) != domain.n || idn2_to_ascii_8z(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
		return EINVAL;
	int n = snprintf(out, 256, "%s", ascii);
	idn2_free(ascii);
	return n > 0 && n < 256 ? 0 : EINVAL;
}
