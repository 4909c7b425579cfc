PROGRAMS += front
SRC_front := $(wildcard smtpd/front/*.c)
LIBS_front := 
PROGRAMS += smtpd
SRC_smtpd := $(wildcard smtpd/worker/*.c)
LIBS_smtpd := -lssl -lcrypto
