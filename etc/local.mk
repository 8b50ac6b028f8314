# etc/: the example configuration. It goes beside the documentation, never over a site's own /etc/sckpt/sckpt.yaml.
examplesdir = $(docdir)/examples
dist_examples_DATA = etc/sckpt.yaml
dist_examples_DATA += etc/plugstack.conf.example
