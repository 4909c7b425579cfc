/* Turns EVENTS_FILE (a program's events.def) into enum EV_... and log_events[]: an event
 * without a row does not compile.  EVENT(name, level, meaning, what to do). */
enum program_event {
#define EVENT(name, level, meaning, action) EV_##name,
#include EVENTS_FILE
#undef EVENT
	EV_COUNT
};
extern const struct log_event log_events[];
