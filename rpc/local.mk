# rpc/: what the programs say to each other, and who may say it.
# A program that talks links with $(RPC_LIBS); one that includes the generated headers compiles with $(GRPC_CFLAGS).
noinst_LIBRARIES += librpc_generated.a librpc.a
RPC_LIBS = librpc.a librpc_generated.a libcommon.a $(GRPC_LIBS) $(MUNGE_LIBS) $(BLAKE3_LIBS)
librpc_a_SOURCES = rpc/local.h rpc/srun.h rpc/task_name.h rpc/task_name.cpp rpc/auth_munge.h rpc/auth_munge.cpp rpc/purpose.h rpc/purpose.cpp rpc/status.h rpc/status.cpp \
  rpc/channel.h rpc/channel.cpp rpc/server_auth.h rpc/server_auth.cpp rpc/text.h rpc/text.cpp
librpc_a_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS) $(BLAKE3_CFLAGS)

# the generated code is not ours to make warning-free
nodist_librpc_generated_a_SOURCES = rpc/sckpt.pb.cc rpc/sckpt.grpc.pb.cc rpc/relay.pb.cc rpc/relay.grpc.pb.cc
librpc_generated_a_CXXFLAGS = $(HARDEN_CXXFLAGS) $(SAN_CXXFLAGS) $(GRPC_CFLAGS)
GENERATED_RPC_H = rpc/sckpt.pb.h rpc/sckpt.grpc.pb.h rpc/relay.pb.h rpc/relay.grpc.pb.h
BUILT_SOURCES += $(GENERATED_RPC_H)
CLEANFILES += $(GENERATED_RPC_H) rpc/sckpt.pb.cc rpc/sckpt.grpc.pb.cc rpc/relay.pb.cc rpc/relay.grpc.pb.cc
EXTRA_DIST += rpc/sckpt.proto rpc/relay.proto
$(librpc_generated_a_OBJECTS): $(GENERATED_RPC_H)
rpc/sckpt.pb.cc: rpc/sckpt.proto
	$(AM_V_GEN)$(MKDIR_P) rpc && $(PROTOC) -I$(top_srcdir) --cpp_out=. $(top_srcdir)/rpc/sckpt.proto
rpc/sckpt.grpc.pb.cc: rpc/sckpt.proto
	$(AM_V_GEN)$(MKDIR_P) rpc && $(PROTOC) -I$(top_srcdir) --grpc_out=. --plugin=protoc-gen-grpc=$(GRPC_CPP_PLUGIN) $(top_srcdir)/rpc/sckpt.proto
rpc/relay.pb.cc: rpc/relay.proto rpc/sckpt.proto
	$(AM_V_GEN)$(MKDIR_P) rpc && $(PROTOC) -I$(top_srcdir) --cpp_out=. $(top_srcdir)/rpc/relay.proto
rpc/relay.grpc.pb.cc: rpc/relay.proto rpc/sckpt.proto
	$(AM_V_GEN)$(MKDIR_P) rpc && $(PROTOC) -I$(top_srcdir) --grpc_out=. --plugin=protoc-gen-grpc=$(GRPC_CPP_PLUGIN) $(top_srcdir)/rpc/relay.proto
rpc/sckpt.pb.h: rpc/sckpt.pb.cc
	@touch $@
rpc/sckpt.grpc.pb.h: rpc/sckpt.grpc.pb.cc
	@touch $@
rpc/relay.pb.h: rpc/relay.pb.cc
	@touch $@
rpc/relay.grpc.pb.h: rpc/relay.grpc.pb.cc
	@touch $@

# for the system tests: a client that lies
noinst_PROGRAMS += rogue_rpc
rogue_rpc_SOURCES = tests/workloads/rogue_rpc.cpp
rogue_rpc_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
rogue_rpc_LDADD = $(RPC_LIBS)
$(rogue_rpc_OBJECTS): $(GENERATED_RPC_H)
