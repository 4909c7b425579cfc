COMMON_SRC += $(wildcard common/lease/*.c)
