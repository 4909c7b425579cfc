/* odbc:FILE: a database behind unixODBC.  FILE holds "connection = DSN=...;..." and "query = SELECT ... WHERE x = ?"; the key
 * is bound to the question mark, never pasted into the text.  Rows and columns that are more than one are joined by commas. */
#include "map/map.h"

#include <sql.h>
#include <sqlext.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT_S = 10, CELL_MOST = 4096, ROWS_MOST = 10000 };

struct odbc {
	char *connection, *query;
	SQLHENV env;
	SQLHDBC dbc;
	bool connected;
};

static bool good(SQLRETURN r)
{
	return r == SQL_SUCCESS || r == SQL_SUCCESS_WITH_INFO;
}

static void say(const struct map *m, SQLSMALLINT type, SQLHANDLE handle, const char *what, struct complaint *why)
{
	SQLCHAR state[6] = "", text[300] = "";
	SQLINTEGER native;
	SQLSMALLINT n;
	(void)SQLGetDiagRec(type, handle, 1, state, &native, text, sizeof text, &n);
	complain(why, m->path, 0, "%s: %s %s", what, (const char *)state, (const char *)text);
}

static void close_odbc(struct map *m)
{
	struct odbc *o = m->state;
	if (o->connected)
		(void)SQLDisconnect(o->dbc);
	if (o->dbc != SQL_NULL_HDBC)
		(void)SQLFreeHandle(SQL_HANDLE_DBC, o->dbc);
	if (o->env != SQL_NULL_HENV)
		(void)SQLFreeHandle(SQL_HANDLE_ENV, o->env);
	free(o->connection);
	free(o->query);
	free(o);
}

static int open_odbc(struct map *m, struct complaint *why)
{
	struct odbc *o = calloc(1, sizeof *o);
	m->state = o;
	if (o == NULL)
		return ENOMEM;
	const struct map_setting known[] = {{"connection", true, &o->connection}, {"query", true, &o->query}};
	int error = map_read_settings(m->path, known, COUNT_OF(known), why);
	if (error == 0 && strchr(o->query, '?') == NULL) {
		complain(why, m->path, 0, "the query has no ? for the key");
		error = EINVAL;
	}
	if (error == 0 && (!good(SQLAllocHandle(SQL_HANDLE_ENV, SQL_NULL_HANDLE, &o->env)) ||
			!good(SQLSetEnvAttr(o->env, SQL_ATTR_ODBC_VERSION, (SQLPOINTER)SQL_OV_ODBC3, 0)) ||
			!good(SQLAllocHandle(SQL_HANDLE_DBC, o->env, &o->dbc)))) {
		complain(why, m->path, 0, "unixODBC cannot be used");
		error = EIO;
	}
	if (error != 0) {
		close_odbc(m);
		m->state = NULL;
	}
	return error;
}

static bool connect_now(const struct map *m, struct odbc *o, struct complaint *why)
{
	if (o->connected)
		return true;
	(void)SQLSetConnectAttr(o->dbc, SQL_ATTR_LOGIN_TIMEOUT, (SQLPOINTER)LIMIT_S, 0);
	o->connected = good(SQLDriverConnect(o->dbc, NULL, (SQLCHAR *)o->connection, SQL_NTS, NULL, 0, NULL, SQL_DRIVER_NOPROMPT));
	if (!o->connected)
		say(m, SQL_HANDLE_DBC, o->dbc, "no connection", why);
	return o->connected;
}

/* All cells, joined.  False: a row could not be read. */
static bool take_rows(SQLHSTMT s, struct buffer *value, size_t *cells)
{
	SQLSMALLINT columns = 0;
	SQLRETURN r = SQL_NO_DATA;
	*cells = 0;
	if (!good(SQLNumResultCols(s, &columns)))
		return false;
	for (size_t rows = 0; rows < ROWS_MOST && good(r = SQLFetch(s)); rows++) {
		for (SQLUSMALLINT i = 1; i <= columns; i++) {
			char cell[CELL_MOST];
			SQLLEN n = 0;
			if (!good(SQLGetData(s, i, SQL_C_CHAR, cell, sizeof cell, &n)))
				return false;
			if (n == SQL_NULL_DATA || n == 0)
				continue;
			if (n < 0 || (size_t)n >= sizeof cell)
				return false;
			buffer_puts(value, (*cells)++ > 0 ? "," : "");
			buffer_put(value, cell, (size_t)n);
		}
	}
	return r == SQL_NO_DATA;
}

static enum map_status ask(const struct map *m, struct odbc *o, SQLHSTMT s, struct span key, struct buffer *value, struct complaint *why)
{
	char text[MAP_KEY_MOST + 1];
	SQLLEN n = (SQLLEN)key.n;
	size_t cells;
	memcpy(text, key.at, key.n);
	text[key.n] = '\0';
	(void)SQLSetStmtAttr(s, SQL_ATTR_QUERY_TIMEOUT, (SQLPOINTER)LIMIT_S, 0);
	if (!good(SQLBindParameter(s, 1, SQL_PARAM_INPUT, SQL_C_CHAR, SQL_VARCHAR, MAP_KEY_MOST, 0, text, sizeof text, &n)) ||
		!good(SQLExecDirect(s, (SQLCHAR *)o->query, SQL_NTS)) || !take_rows(s, value, &cells)) {
		say(m, SQL_HANDLE_STMT, s, "the query failed", why);
		return MAP_FAILED;
	}
	return cells == 0 ? MAP_NONE : MAP_FOUND;
}

static enum map_status query_odbc(struct map *m, struct span key, struct buffer *value, struct complaint *why)
{
	struct odbc *o = m->state;
	SQLHSTMT s = SQL_NULL_HSTMT;
	enum map_status status = MAP_FAILED;
	if (!connect_now(m, o, why))
		return MAP_FAILED;
	if (good(SQLAllocHandle(SQL_HANDLE_STMT, o->dbc, &s)))
		status = ask(m, o, s, key, value, why);
	else
		say(m, SQL_HANDLE_DBC, o->dbc, "no statement", why);
	if (s != SQL_NULL_HSTMT)
		(void)SQLFreeHandle(SQL_HANDLE_STMT, s);
	if (status == MAP_FAILED) { /* the connection may be at fault: the next question makes a new one */
		(void)SQLDisconnect(o->dbc);
		o->connected = false;
	}
	return status;
}

/* What module.c looks for in libexec/odbc.so. */
extern const struct map_kind map_module;
__attribute__((visibility("default"))) const struct map_kind map_module = {"odbc", true, true, open_odbc, close_odbc, query_odbc, NULL};
