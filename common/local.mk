# common/: what every program needs and nothing above it.
noinst_LIBRARIES += libcommon.a
libcommon_a_SOURCES = common/result.h common/result.cpp common/fd.h common/fd.cpp \
  common/process.h common/process.cpp common/process_facts.cpp common/cgroups.h common/cgroups.cpp \
  common/log.h common/log.cpp common/interval.h common/interval.cpp common/bytes.h common/bytes.cpp common/json.h common/json.cpp \
  common/user_file.h common/page_runs.h common/config.h common/config.cpp
libcommon_a_CPPFLAGS = $(AM_CPPFLAGS) $(YAML_CFLAGS)
