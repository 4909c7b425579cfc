PROGRAMS += gssd
SRC_gssd := $(wildcard gssd/*.c)
LIBS_gssd := -lgsasl -lgssapi_krb5 -lkrb5 -lssl -lcrypto
