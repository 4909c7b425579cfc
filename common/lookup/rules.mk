COMMON_SRC += $(wildcard common/lookup/*.c)
