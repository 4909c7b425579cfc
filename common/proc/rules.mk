COMMON_SRC += $(wildcard common/proc/*.c)
