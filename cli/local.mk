# cli/: what users and operators type.
bin_PROGRAMS += sckpt
sbin_PROGRAMS += sckpt-clean
noinst_LIBRARIES += libcli.a
libcli_a_SOURCES = cli/job_id.h cli/job_id.cpp cli/jobs.h cli/jobs.cpp cli/output.h cli/output.cpp cli/json.cpp cli/session.h cli/session.cpp cli/program.h \
  cli/program.cpp cli/progress.h cli/progress.cpp cli/verbs.h cli/create.cpp cli/drain.cpp cli/find_step.cpp cli/list.cpp cli/pin.cpp cli/show.cpp \
  cli/status.cpp cli/watch.cpp cli/clean.h cli/clean_rules.cpp cli/clean_report.cpp cli/clean_orphans.cpp cli/clean_check.cpp \
  cli/clean_rebuild.cpp cli/clean_key.cpp cli/clean_store.cpp
libcli_a_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
sckpt_SOURCES = cli/main.cpp
sckpt_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
sckpt_LDADD = libcli.a $(RPC_LIBS) $(YAML_LIBS)
sckpt_clean_SOURCES = cli/clean_main.cpp
sckpt_clean_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
sckpt_clean_LDADD = libcli.a libimage_store.a $(RPC_LIBS) $(YAML_LIBS)
$(libcli_a_OBJECTS) $(sckpt_OBJECTS) $(sckpt_clean_OBJECTS): $(GENERATED_RPC_H)
