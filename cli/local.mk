# cli/: what users and operators type.
bin_PROGRAMS += sckpt
noinst_LIBRARIES += libcli.a
libcli_a_SOURCES = cli/job_id.h cli/job_id.cpp cli/output.h cli/output.cpp cli/json.cpp cli/session.h cli/session.cpp cli/verbs.h \
  cli/create.cpp cli/list.cpp cli/show.cpp cli/status.cpp
libcli_a_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
sckpt_SOURCES = cli/main.cpp
sckpt_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
sckpt_LDADD = libcli.a $(RPC_LIBS) $(YAML_LIBS)
$(libcli_a_OBJECTS) $(sckpt_OBJECTS): $(GENERATED_RPC_H)
