# plugin/: the SPANK plug-in. It lives inside Slurm's programs, so it brings its own C++ runtime, exports Slurm's symbols alone, and has
# neither libtool (which links libstdc++ dynamically whatever one says) nor sanitizers. The archive is for the dependency tracking.
noinst_LIBRARIES += plugin/libspank_sckpt.a
plugin_libspank_sckpt_a_SOURCES = plugin/spank_sckpt.cpp plugin/settings.h plugin/settings.cpp plugin/srun_step.h plugin/srun_step.cpp plugin/submission.h \
  plugin/submission.cpp plugin/step_restart.h plugin/step_restart.cpp rpc/srun.h rpc/task_name.h rpc/task_name.cpp \
  common/fd.h common/fd.cpp common/interval.h common/interval.cpp common/result.h common/result.cpp
plugin_libspank_sckpt_a_CPPFLAGS = $(AM_CPPFLAGS) $(SLURM_CPPFLAGS) -DSCKPT_BINDIR='"$(bindir)"' 
plugin_libspank_sckpt_a_CXXFLAGS = $(WARN_CXXFLAGS) -fstack-protector-strong -fPIC
spank_DATA = spank_sckpt.so
CLEANFILES += spank_sckpt.so
EXTRA_DIST += plugin/spank_sckpt.map
spank_sckpt.so: plugin/libspank_sckpt.a plugin/spank_sckpt.map
	$(AM_V_CXXLD)$(CXX) $(CXXFLAGS) $(LDFLAGS) -shared -static-libstdc++ -static-libgcc -Wl,-z,relro -Wl,-z,now \
	  -Wl,--version-script=$(top_srcdir)/plugin/spank_sckpt.map -Wl,--whole-archive plugin/libspank_sckpt.a -Wl,--no-whole-archive -o $@
