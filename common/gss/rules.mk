COMMON_SRC += $(wildcard common/gss/*.c)
