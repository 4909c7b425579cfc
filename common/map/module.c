/* Kinds of maps that need a library of their own: a module, loaded when such a map is opened, so that a machine without one need not
 * have the library. */
#include "map/map.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct map_kind *loaded_odbc;

/* Beside the program (libexec), below it (a command in a build), or where it is installed. */
static void *open_module(const char *name, char fault[300])
{
	static const char *const below[] = {"", "/libexec", "/../libexec"};
	char self[4096], path[4300];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	self[n > 0 ? n : 0] = '\0';
	char *slash = strrchr(self, '/');
	if (slash != NULL)
		*slash = '\0';
	(void)snprintf(path, sizeof path, "%s/%s.so", POSTHORN_LIBEXEC, name);
	for (size_t i = 0; i < COUNT_OF(below); i++) {
		char other[4300];
		(void)snprintf(other, sizeof other, "%s%s/%s.so", self, below[i], name);
		if (access(other, F_OK) == 0) {
			(void)snprintf(path, sizeof path, "%s", other);
			break;
		}
	}
	void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (module == NULL)
		(void)snprintf(fault, 300, "%s", dlerror());
	return module;
}

static int load(struct complaint *why)
{
	char fault[300] = "";
	void *module = loaded_odbc != NULL ? NULL : open_module("odbc", fault);
	if (module != NULL)
		loaded_odbc = dlsym(module, "map_module");
	if (loaded_odbc != NULL)
		return 0;
	complain(why, "odbc", 0, "the package posthorn-odbc is needed: %s", fault);
	return ENOENT;
}

void map_prepare(struct span spec)
{
	struct complaint why;
	struct span name = spec;
	if (span_is(span_until(&name, ':'), "odbc"))
		(void)!load(&why); /* it is told when the map is opened */
}

static int open_far(struct map *m, struct complaint *why)
{
	int error = load(why);
	if (error != 0)
		return error;
	m->kind = loaded_odbc;
	return m->kind->open(m, why);
}

const struct map_kind map_odbc = {.name = "odbc", .parts = true, .remote = true, .open = open_far};
