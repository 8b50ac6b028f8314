# rpc/: what the programs say to each other, and who may say it.
noinst_LIBRARIES += librpc.a
nodist_librpc_a_SOURCES = rpc/sckpt.pb.cc rpc/sckpt.grpc.pb.cc
librpc_a_SOURCES = rpc/local.h rpc/auth_munge.h rpc/auth_munge.cpp
# the generated code is not ours to make warning-free
librpc_a_CXXFLAGS = $(HARDEN_CXXFLAGS) $(SAN_CXXFLAGS) $(GRPC_CFLAGS)
RPC_GENERATED = rpc/sckpt.pb.h rpc/sckpt.pb.cc rpc/sckpt.grpc.pb.h rpc/sckpt.grpc.pb.cc
BUILT_SOURCES += rpc/sckpt.pb.h rpc/sckpt.grpc.pb.h
CLEANFILES += $(RPC_GENERATED)
EXTRA_DIST += rpc/sckpt.proto
rpc/sckpt.pb.cc rpc/sckpt.pb.h: rpc/sckpt.proto
	$(AM_V_GEN)$(MKDIR_P) rpc && $(PROTOC) -I$(top_srcdir) --cpp_out=. $(top_srcdir)/rpc/sckpt.proto
rpc/sckpt.grpc.pb.cc rpc/sckpt.grpc.pb.h: rpc/sckpt.proto rpc/sckpt.pb.h
	$(AM_V_GEN)$(MKDIR_P) rpc && $(PROTOC) -I$(top_srcdir) --grpc_out=. --plugin=protoc-gen-grpc=$(GRPC_CPP_PLUGIN) $(top_srcdir)/rpc/sckpt.proto
