COMMON_SRC += $(wildcard common/tls/*.c)
