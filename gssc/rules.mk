PROGRAMS += gssc
SRC_gssc := $(wildcard gssc/*.c)
LIBS_gssc := -lgsasl -lgssapi_krb5 -lkrb5 -lssl -lcrypto
