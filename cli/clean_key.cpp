// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-clean make-key: the key that seals images. It is made here, by root, and never leaves this machine by itself.
#include <unistd.h>
#include <format>

#include "cli/clean.h"
#include "common/config.h"
#include "image_store/seal.h"

namespace sckpt::cli {

std::string render_key(const std::string& path, const std::string& id, bool rotated) {
    std::string text = std::format("key {} is now the {}key in {}\n\n", id, rotated ? "first " : "", path);
    text += std::format(
        "Copy this file to every node that runs sckptd, owned by root and with mode 0600, and keep a copy where you keep the\n"
        "keys of the site: without it no checkpoint in the store can be used. For example, for each node:\n"
        "  scp -p {0} NODE:{0}\n",
        path);
    if (!rotated) return text + "Nothing has to be restarted.\n";
    return text +
           "Do this now: a node without the new key refuses what other nodes seal with it. Nothing has to be restarted.\n"
           "The lines below the first verify older images: leave them in until no checkpoint from before today is left.\n";
}

Result<Outcome> clean_make_key(const Options& options, bool rotate) {
    auto config = load_config(options.config_path);
    if (!config) return fail(Errc::invalid, config.error().text);
    const std::string& path = config->store.key;
    if (geteuid() != 0) return fail(Errc::denied, std::format("{} must belong to root: run this as root", path));
    SCKPT_ASSIGN(const std::string id, write_key_file(path, rotate));
    if (!options.json) return render_key(path, id, rotate);
    return json_text({{"key_id", id}, {"path", path}, {"rotated", rotate}});
}

}  // namespace sckpt::cli
