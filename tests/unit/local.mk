# one line a file: unit_tests_SOURCES += tests/unit/<dir>_<file>_test.cpp
# rpc/ and cli/: a program of their own, so that the rest links without gRPC
if HAVE_CATCH2
check_PROGRAMS += rpc_tests
TESTS += rpc_tests
endif
rpc_tests_SOURCES = tests/unit/munged_for_tests.h tests/unit/rpc_munge_test.cpp tests/unit/rpc_call_test.cpp tests/unit/rpc_text_test.cpp \
  tests/unit/cli_job_id_test.cpp tests/unit/cli_output_test.cpp tests/unit/cli_watch_test.cpp tests/unit/cli_clean_test.cpp
rpc_tests_SOURCES += tests/unit/daemon_drain_grants_test.cpp daemon/drain_grants.cpp tests/unit/daemon_drain_sum_test.cpp daemon/drain_sum.cpp tests/unit/daemon_store_orders_test.cpp \
  daemon/store_orders.cpp tests/unit/catalogue_tools.h tests/unit/store_keeper_tools.h tests/unit/daemon_store_keeper_test.cpp \
  tests/unit/daemon_store_keeper_compact_test.cpp tests/unit/daemon_store_keeper_orphans_test.cpp \
  tests/unit/daemon_store_keeper_check_test.cpp tests/unit/daemon_store_keeper_rebuild_test.cpp \
  daemon/store_keeper.cpp daemon/store_keeper_compact.cpp daemon/store_keeper_orphans.cpp daemon/store_keeper_check.cpp \
  daemon/store_keeper_rebuild.cpp daemon/messages.cpp daemon/catalogue_file.cpp daemon/unremoved_files.cpp
rpc_tests_SOURCES += tests/unit/daemon_node_part_test.cpp daemon/node_part.cpp daemon/fast_tier.cpp daemon/held_part.cpp
rpc_tests_SOURCES += tests/unit/daemon_live_jobs_test.cpp daemon/live_jobs.cpp tests/unit/rpc_task_name_test.cpp
rpc_tests_SOURCES += tests/unit/node_outbox_for_tests.h tests/unit/node_streams_for_tests.h tests/unit/daemon_workers_test.cpp daemon/workers.cpp \
  tests/unit/daemon_node_streams_test.cpp daemon/node_streams.cpp tests/unit/daemon_node_addresses_test.cpp daemon/node_addresses.cpp \
  tests/unit/daemon_relay_test.cpp daemon/relay_streams.cpp daemon/relay_uplink.cpp daemon/relay_desk.cpp daemon/peer_trust.cpp
rpc_tests_CXXFLAGS = $(AM_CXXFLAGS) $(CATCH2_CFLAGS) $(GRPC_CFLAGS) $(SQLITE_CFLAGS)
rpc_tests_LDADD = libcli.a libstore_client.a libimage_store_testing.a $(IMAGE_STORE_LIBS) $(RPC_LIBS) libcommon.a $(YAML_LIBS) $(CATCH2_LIBS)
$(rpc_tests_OBJECTS): $(GENERATED_RPC_H)
# what is run for every call that can fail: a program of its own, so that it runs beside the others
if HAVE_CATCH2
check_PROGRAMS += fault_tests
TESTS += fault_tests
endif
fault_tests_SOURCES = tests/unit/image_store_catalogue_faults_test.cpp tests/unit/catalogue_tools.h tests/unit/image_store_tools.h
fault_tests_CXXFLAGS = $(AM_CXXFLAGS) $(CATCH2_CFLAGS) $(SQLITE_CFLAGS)
fault_tests_LDADD = libimage_store_testing.a $(IMAGE_STORE_LIBS) libcommon.a $(CATCH2_LIBS)
if HAVE_CATCH2
check_PROGRAMS += store_fault_tests
TESTS += store_fault_tests
endif
store_fault_tests_SOURCES = tests/unit/daemon_store_faults_test.cpp tests/unit/store_life.h tests/unit/store_life.cpp \
  tests/unit/store_in_process.h tests/unit/image_store_tools.h tests/unit/image_store_file_systems.h daemon/store_keeper.cpp \
  daemon/store_keeper_compact.cpp daemon/store_keeper_orphans.cpp daemon/store_keeper_check.cpp daemon/store_keeper_rebuild.cpp \
  daemon/unremoved_files.cpp daemon/messages.cpp daemon/store_work.cpp daemon/store_worker.cpp daemon/store_worker_operations.cpp
store_fault_tests_CXXFLAGS = $(AM_CXXFLAGS) $(CATCH2_CFLAGS) $(GRPC_CFLAGS) $(SQLITE_CFLAGS)
store_fault_tests_LDADD = libstore_client.a libbackend.a libimage_store_testing.a $(IMAGE_STORE_LIBS) $(RPC_LIBS) libcommon.a $(YAML_LIBS) \
  $(CATCH2_LIBS)
$(store_fault_tests_OBJECTS): $(GENERATED_RPC_H)
unit_tests_SOURCES += tests/unit/common_interval_test.cpp tests/unit/common_fd_test.cpp tests/unit/common_log_test.cpp \
  tests/unit/common_process_test.cpp tests/unit/common_config_test.cpp tests/unit/common_bytes_test.cpp
unit_tests_SOURCES += tests/unit/plugin_settings_test.cpp plugin/settings.cpp
unit_tests_SOURCES += tests/unit/daemon_run_test.cpp daemon/sckpt_run_options.cpp daemon/sckpt_run_exec.cpp
unit_tests_SOURCES += tests/unit/daemon_run_state_test.cpp daemon/run_state.cpp tests/unit/daemon_srun_launch_test.cpp daemon/srun_launch.cpp \
  daemon/srun_environment.cpp
TESTS += tests/unit/plugin_symbols_test.sh
EXTRA_DIST += tests/unit/plugin_symbols_test.sh
unit_tests_SOURCES += tests/unit/image_store_tools.h tests/unit/catalogue_tools.h tests/unit/image_store_catalogue_test.cpp \
  tests/unit/image_store_catalogue_store_test.cpp tests/unit/image_store_catalogue_rebuild_test.cpp \
  tests/unit/image_store_catalogue_tasks_test.cpp tests/unit/image_store_catalogue_migration_test.cpp tests/unit/image_store_retention_test.cpp
unit_tests_SOURCES += tests/unit/image_store_file_systems.h tests/unit/image_store_file_system_test.cpp tests/unit/image_store_seal_test.cpp \
  tests/unit/image_store_names_test.cpp tests/unit/image_store_files_test.cpp
unit_tests_SOURCES += tests/unit/image_store_images.h tests/unit/image_store_chunker_test.cpp tests/unit/image_store_codec_test.cpp \
  tests/unit/image_store_pack_test.cpp tests/unit/image_store_manifest_test.cpp tests/unit/image_store_store_test.cpp \
  tests/unit/image_store_size_test.cpp tests/unit/backend_page_runs_test.cpp
unit_tests_SOURCES += tests/unit/backend_record_test.cpp tests/unit/backend_stats_test.cpp tests/unit/backend_cgroups_test.cpp \
  tests/unit/backend_user_files_test.cpp tests/unit/backend_credentials_test.cpp tests/unit/backend_log_reader_test.cpp
unit_tests_SOURCES += tests/unit/store_client_tools.h tests/unit/daemon_store_client_test.cpp tests/unit/daemon_store_process_test.cpp \
  tests/unit/daemon_owned_tree_test.cpp tests/unit/daemon_manifest_check_test.cpp
unit_tests_SOURCES += tests/unit/daemon_deadline_test.cpp tests/unit/daemon_idle_group_test.cpp
unit_tests_SOURCES += tests/unit/daemon_restart_policy_test.cpp daemon/restart_policy.cpp
unit_tests_SOURCES += tests/unit/daemon_fast_tier_test.cpp daemon/fast_tier.cpp daemon/fast_tier_mount.cpp \
  tests/unit/daemon_drain_queue_test.cpp daemon/drain_queue.cpp \
  tests/unit/daemon_held_part_test.cpp daemon/held_part.cpp daemon/image_needs.cpp daemon/dump_size.cpp
unit_tests_SOURCES += tests/unit/daemon_quiet_test.cpp daemon/quiet.cpp tests/unit/daemon_task_ends_test.cpp daemon/task_ends.cpp \
  daemon/run_directory.cpp
unit_tests_SOURCES += tests/unit/daemon_generation_test.cpp daemon/generation_table.h daemon/generation_table.cpp daemon/generation_ranks.h \
  daemon/generation_ranks.cpp daemon/generation_limits.h daemon/generation.h daemon/generation.cpp rpc/task_name.cpp
unit_tests_SOURCES += tests/unit/generation_pool.h tests/unit/generation_pool.cpp tests/unit/generation_world.h tests/unit/generation_world.cpp \
  tests/unit/generation_world_controller.cpp tests/unit/generation_world_node.cpp tests/unit/generation_explorer.h \
  tests/unit/generation_explorer.cpp tests/unit/generation_explorer_test.cpp
