# daemon/

# sckpt-run: static, as it starts in front of every task; -all-static is libtool's word for that
sckptlibexec_PROGRAMS += sckpt-run
sckpt_run_SOURCES = daemon/sckpt_run.cpp daemon/sckpt_run_options.h daemon/sckpt_run_options.cpp daemon/sckpt_run_exec.h \
  daemon/sckpt_run_exec.cpp daemon/sckpt_run_signals.h daemon/sckpt_run_signals.cpp daemon/sckpt_run_link.h daemon/sckpt_run_link.cpp
if !SANITIZER
sckpt_run_LDFLAGS = -all-static
endif
sckpt_run_LDADD = libcommon.a

# the two daemons share the small file that speaks to Slurm
noinst_LIBRARIES += libdaemon.a
libdaemon_a_SOURCES = daemon/slurm_api.h daemon/slurm_api.cpp daemon/restart_policy.h daemon/restart_policy.cpp daemon/outbox.h \
  daemon/daemon_main.h daemon/daemon_main.cpp
libdaemon_a_CPPFLAGS = $(AM_CPPFLAGS) $(SLURM_CPPFLAGS)

sbin_PROGRAMS += sckptctld sckptd
sckptctld_SOURCES = daemon/sckptctld_main.cpp daemon/controller.h daemon/controller.cpp daemon/controller_nodes.cpp \
  daemon/controller_watch.cpp daemon/controller_query.cpp daemon/controller_service.h daemon/controller_service.cpp
sckptctld_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
sckptctld_LDADD = libdaemon.a $(RPC_LIBS) $(IMAGE_STORE_LIBS) libcommon.a $(YAML_LIBS) $(SLURM_LIBS)

sckptd_SOURCES = daemon/sckptd_main.cpp daemon/node_agent.h daemon/node_agent.cpp daemon/node_restore.cpp daemon/connection_limits.h \
  daemon/controller_link.h daemon/controller_link.cpp
sckptd_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
sckptd_LDADD = libdaemon.a libbackend.a $(RPC_LIBS) $(IMAGE_STORE_LIBS) libcommon.a $(YAML_LIBS) $(SLURM_LIBS)
$(sckptctld_OBJECTS) $(sckptd_OBJECTS): $(GENERATED_RPC_H)
