# backend/: what can dump and restore a process tree.
noinst_LIBRARIES += libbackend.a
libbackend_a_SOURCES = backend/backend.h backend/criu/criu_backend.cpp backend/criu/driver.h \
  backend/criu/record.h backend/criu/record.cpp backend/criu/log_reader.h backend/criu/log_reader.cpp \
  backend/criu/stats.h backend/criu/stats.cpp backend/criu/cgroups.h backend/criu/cgroups.cpp \
  backend/criu/user_files.h backend/criu/user_files.cpp backend/criu/credentials.h backend/criu/credentials.cpp \
  backend/criu/namespaces.h backend/criu/namespaces.cpp backend/criu/tree_check.h backend/criu/tree_check.cpp \
  backend/criu/descriptor_check.h backend/criu/descriptor_check.cpp \
  backend/criu/varint.h backend/criu/page_runs.h backend/criu/page_runs.cpp backend/criu/task_files.h backend/criu/task_files.cpp backend/criu/child.h backend/criu/child.cpp \
  backend/criu/barrier.h backend/criu/barrier.cpp

sckptlibexec_PROGRAMS += sckpt-criu sckpt-criu-hook
sckpt_criu_SOURCES = backend/criu/driver.cpp backend/criu/criu_process.cpp backend/criu/dump.cpp backend/criu/restore.cpp \
  backend/criu/restore_init.cpp backend/criu/script_mount.h backend/criu/script_mount.cpp backend/criu/probe.cpp
sckpt_criu_LDADD = libbackend.a libcommon.a
sckpt_criu_hook_SOURCES = backend/criu/hook.cpp
sckpt_criu_hook_LDADD = libbackend.a libcommon.a

# loaded into criu, a C program: no C++ library
sckptlibexec_LTLIBRARIES = libsckpt-criu-preload.la
libsckpt_criu_preload_la_SOURCES = backend/criu/preload.cpp
libsckpt_criu_preload_la_CXXFLAGS = $(WARN_CXXFLAGS) -U_FORTIFY_SOURCE -fvisibility=hidden -fno-exceptions -fno-rtti -fno-threadsafe-statics
libsckpt_criu_preload_la_LDFLAGS = -module -avoid-version -shared -Wl,-z,relro -Wl,-z,now -nostdlib
libsckpt_criu_preload_la_LIBADD = -lc
