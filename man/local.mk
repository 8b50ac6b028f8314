# man/: one page a program, and one for the configuration file.
dist_man_MANS += man/sckpt.1 man/sckpt.yaml.5 man/sckpt-clean.8 man/sckptctld.8 man/sckptd.8 man/sckpt-run.8 man/spank_sckpt.8
