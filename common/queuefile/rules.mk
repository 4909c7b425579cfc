COMMON_SRC += $(wildcard common/queuefile/*.c)
