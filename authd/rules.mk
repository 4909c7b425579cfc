PROGRAMS += authd
SRC_authd := $(wildcard authd/*.c)
LIBS_authd := -lgsasl -lcrypt -lcrypto
