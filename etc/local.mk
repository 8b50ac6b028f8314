# etc/: examples of the configuration, which go beside the documentation and never over a site's own files, and the systemd units.
examplesdir = $(docdir)/examples
dist_examples_DATA = etc/sckpt.yaml etc/plugstack.conf.example

nodist_systemdsystemunit_DATA = etc/sckptd.service etc/sckptctld.service etc/sckpt-relay.service
EXTRA_DIST += etc/sckptd.service.in etc/sckptctld.service.in etc/sckpt-relay.service.in
CLEANFILES += $(nodist_systemdsystemunit_DATA)
etc/%.service: etc/%.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) etc && sed 's|@sbindir[@]|$(sbindir)|g' $< > $@
