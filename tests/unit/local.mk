# one line a file: unit_tests_SOURCES += tests/unit/<dir>_<file>_test.cpp
# rpc/ and cli/: a program of their own, so that the rest links without gRPC
if HAVE_CATCH2
check_PROGRAMS += rpc_tests
TESTS += rpc_tests
endif
rpc_tests_SOURCES = tests/unit/munged_for_tests.h tests/unit/rpc_munge_test.cpp tests/unit/rpc_call_test.cpp tests/unit/rpc_text_test.cpp \
  tests/unit/cli_job_id_test.cpp tests/unit/cli_output_test.cpp
rpc_tests_CXXFLAGS = $(AM_CXXFLAGS) $(CATCH2_CFLAGS) $(GRPC_CFLAGS)
rpc_tests_LDADD = libcli.a $(RPC_LIBS) $(YAML_LIBS) $(CATCH2_LIBS)
$(rpc_tests_OBJECTS): $(GENERATED_RPC_H)
unit_tests_SOURCES += tests/unit/common_interval_test.cpp tests/unit/common_fd_test.cpp tests/unit/common_log_test.cpp \
  tests/unit/common_process_test.cpp tests/unit/common_config_test.cpp
unit_tests_SOURCES += tests/unit/plugin_settings_test.cpp plugin/settings.cpp
unit_tests_SOURCES += tests/unit/daemon_run_test.cpp daemon/sckpt_run_options.cpp daemon/sckpt_run_exec.cpp
TESTS += tests/unit/plugin_symbols_test.sh
EXTRA_DIST += tests/unit/plugin_symbols_test.sh
unit_tests_SOURCES += tests/unit/image_store_tools.h tests/unit/image_store_fixture.h tests/unit/image_store_catalogue_test.cpp \
  tests/unit/image_store_store_test.cpp tests/unit/image_store_verify_test.cpp
unit_tests_SOURCES += tests/unit/backend_record_test.cpp tests/unit/backend_stats_test.cpp tests/unit/backend_cgroups_test.cpp \
  tests/unit/backend_user_files_test.cpp tests/unit/backend_credentials_test.cpp tests/unit/backend_log_reader_test.cpp
unit_tests_SOURCES += tests/unit/daemon_restart_policy_test.cpp daemon/restart_policy.cpp
