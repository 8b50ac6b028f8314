# daemon/

# sckpt-run: static, as it starts in front of every task; -all-static is libtool's word for that
sckptlibexec_PROGRAMS += sckpt-run
sckpt_run_SOURCES = daemon/sckpt_run.cpp daemon/sckpt_run_options.h daemon/sckpt_run_options.cpp daemon/sckpt_run_exec.h \
  daemon/sckpt_run_exec.cpp daemon/sckpt_run_signals.h daemon/sckpt_run_signals.cpp daemon/sckpt_run_link.h daemon/sckpt_run_link.cpp \
  daemon/sckpt_run_stdin.h daemon/sckpt_run_stdin.cpp daemon/sckpt_run_steps.h daemon/sckpt_run_steps.cpp daemon/srun_exec.h \
  daemon/srun_exec.cpp daemon/srun_environment.h daemon/srun_environment.cpp daemon/srun_launch.h daemon/srun_launch.cpp \
  daemon/seqpacket.h daemon/seqpacket.cpp daemon/run_state.h daemon/run_state.cpp
sckpt_run_LDADD = libcommon.a

# sckpt-srun, the stub in srun's place: static, as it is in every image
sckptlibexec_PROGRAMS += sckpt-srun
sckpt_srun_SOURCES = daemon/sckpt_srun.cpp daemon/sckpt_srun_input.h daemon/sckpt_srun_input.cpp daemon/srun_launch.h \
  daemon/srun_launch.cpp daemon/seqpacket.h daemon/seqpacket.cpp daemon/sckpt_run_signals.h daemon/sckpt_run_signals.cpp
sckpt_srun_LDADD = libcommon.a
if !SANITIZER
sckpt_run_LDFLAGS = -all-static
sckpt_srun_LDFLAGS = -all-static
endif

# the two daemons share the small file that speaks to Slurm
noinst_LIBRARIES += libdaemon.a
libdaemon_a_SOURCES = daemon/slurm_api.h daemon/slurm_api.cpp daemon/restart_policy.h daemon/restart_policy.cpp daemon/running_job.h daemon/outbox.h \
  daemon/daemon_main.h daemon/daemon_main.cpp daemon/run_state.h daemon/run_state.cpp
libdaemon_a_CPPFLAGS = $(AM_CPPFLAGS) $(SLURM_CPPFLAGS)

# the store as sckptd sees it, and the process of the service user that does the work; without gRPC
noinst_LIBRARIES += libstore_client.a
libstore_client_a_SOURCES = daemon/store_client.h daemon/store_client.cpp daemon/store_client_upkeep.cpp daemon/store_session.h \
  daemon/idle_group.h daemon/idle_group.cpp \
  daemon/store_session.cpp daemon/store_process.h daemon/store_process.cpp daemon/manifest_check.h daemon/manifest_check.cpp daemon/owned_tree.h daemon/owned_tree.cpp \
  daemon/store_protocol.h daemon/store_protocol.cpp daemon/watched_files.h daemon/watched_files.cpp
sckptlibexec_PROGRAMS += sckpt-store
sckpt_store_SOURCES = daemon/store_worker_main.cpp daemon/store_worker.h daemon/store_worker.cpp daemon/store_worker_operations.cpp
sckpt_store_LDADD = libstore_client.a libbackend.a $(IMAGE_STORE_LIBS) libcommon.a $(YAML_LIBS)

sbin_PROGRAMS += sckptctld sckptd
sckptctld_SOURCES = daemon/sckptctld_main.cpp daemon/messages.h daemon/messages.cpp daemon/catalogue_file.h daemon/catalogue_file.cpp daemon/drain_grants.h \
  daemon/drain_grants.cpp daemon/drain_sum.h daemon/drain_sum.cpp daemon/store_orders.h daemon/store_orders.cpp daemon/store_keeper.h daemon/store_keeper.cpp \
  daemon/unremoved_files.h daemon/unremoved_files.cpp \
  daemon/store_keeper_compact.cpp daemon/store_keeper_orphans.cpp daemon/store_keeper_check.cpp daemon/store_keeper_rebuild.cpp \
  daemon/controller.h daemon/controller.cpp daemon/controller_generations.cpp daemon/controller_nodes.cpp daemon/controller_resume.cpp \
  daemon/controller_watch.cpp daemon/controller_query.cpp daemon/controller_orders.cpp daemon/controller_tasks.cpp daemon/controller_steps.cpp daemon/controller_jobs.cpp \
  daemon/live_jobs.h daemon/live_jobs.cpp daemon/generation.h daemon/generation.cpp daemon/generation_limits.h \
  daemon/generation_ranks.h daemon/generation_ranks.cpp daemon/generation_table.h daemon/generation_table.cpp daemon/controller_service.h daemon/controller_service.cpp \
  daemon/controller_admin.cpp daemon/node_outbox.h daemon/node_desk.h daemon/server_stream.h daemon/node_streams.h daemon/node_streams.cpp \
  daemon/workers.h daemon/workers.cpp daemon/node_addresses.h daemon/node_addresses.cpp daemon/peer_trust.h daemon/peer_trust.cpp \
  daemon/relay_streams.h daemon/relay_streams.cpp daemon/relay_uplink.h daemon/relay_uplink.cpp daemon/relay_desk.h daemon/relay_desk.cpp \
  daemon/relay.h daemon/relay.cpp daemon/stream_service.h daemon/stream_service.cpp daemon/welcome.h daemon/welcome.cpp
sckptctld_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
sckptctld_LDADD = libdaemon.a $(RPC_LIBS) $(IMAGE_STORE_LIBS) libcommon.a $(YAML_LIBS) $(SLURM_LIBS)

sckptd_SOURCES = daemon/sckptd_main.cpp daemon/messages.h daemon/messages.cpp daemon/node_agent.h daemon/node_agent.cpp daemon/node_tasks.cpp daemon/node_dump.cpp \
  daemon/node_dump_tasks.cpp daemon/node_held.cpp daemon/node_recover.cpp daemon/node_restore.cpp daemon/node_store.cpp daemon/store_work.h \
  daemon/store_work.cpp daemon/node_part.h \
  daemon/node_part.cpp daemon/supervised_task.h daemon/supervised_task.cpp daemon/task_ends.h daemon/task_ends.cpp daemon/quiet.h \
  daemon/quiet.cpp daemon/run_directory.h daemon/run_directory.cpp daemon/background.h daemon/connection_limits.h \
  daemon/fast_tier.h daemon/fast_tier.cpp daemon/fast_tier_mount.cpp daemon/drain_queue.h daemon/drain_queue.cpp \
  daemon/held_part.h daemon/held_part.cpp daemon/image_needs.h daemon/image_needs.cpp daemon/dump_size.h daemon/dump_size.cpp \
  daemon/controller_link.h daemon/controller_link.cpp daemon/welcome.h daemon/welcome.cpp daemon/deadline.h
sckptd_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
sckptd_LDADD = libdaemon.a libstore_client.a libbackend.a $(RPC_LIBS) $(IMAGE_STORE_LIBS) libcommon.a $(YAML_LIBS) $(SLURM_LIBS)
$(sckptctld_OBJECTS) $(sckptd_OBJECTS): $(GENERATED_RPC_H)
