COMMON_SRC += $(wildcard common/ipc/*.c)
