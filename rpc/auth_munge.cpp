// SPDX-License-Identifier: GPL-3.0-or-later
#include "rpc/auth_munge.h"

#include <munge.h>
#include <netinet/in.h>
#include <cstdlib>
#include <format>
#include <memory>
#include <type_traits>

namespace sckpt::rpc {
namespace {

constexpr std::size_t kMaxPurpose = 4096;
constexpr int kTtlSeconds = 60;

struct ContextDeleter {
    void operator()(munge_ctx_t context) const { munge_ctx_destroy(context); }
};
using Context = std::unique_ptr<std::remove_pointer_t<munge_ctx_t>, ContextDeleter>;
struct FreeDeleter {
    void operator()(void* memory) const { std::free(memory); }
};

// A context of its own for each call: they may not be shared between threads.
Result<Context> make_context(const char* socket) {
    Context context(munge_ctx_create());
    if (!context) return fail(Errc::internal, "munge: out of memory");
    if (socket && munge_ctx_set(context.get(), MUNGE_OPT_SOCKET, socket) != EMUNGE_SUCCESS)
        return fail(Errc::internal, std::format("munge: the socket {} is not accepted", socket));
    return context;
}

std::string reason(const Context& context, munge_err_t code) {
    const char* text = munge_ctx_strerror(context.get());
    return text ? text : munge_strerror(code);
}

std::unexpected<Error> failure(const Context& context, munge_err_t code) {
    switch (code) {
        case EMUNGE_SOCKET:
        case EMUNGE_TIMEOUT:
            return fail(Errc::unavailable,
                        std::format("munged does not answer on this host: {}: start the munge service", reason(context, code)));
        case EMUNGE_CRED_EXPIRED:
        case EMUNGE_CRED_REWOUND:
            return fail(Errc::denied, "the munge credential is not of this minute: compare the clocks of the two hosts");
        case EMUNGE_CRED_REPLAYED: return fail(Errc::denied, "the munge credential was used before");
        case EMUNGE_CRED_INVALID:
            return fail(Errc::denied, "the munge credential does not verify: compare the munge keys of the two hosts");
        case EMUNGE_SNAFU:
        case EMUNGE_NO_MEMORY: return fail(Errc::internal, "munge: " + reason(context, code));
        default: return fail(Errc::denied, std::format("the munge credential is refused: {}", reason(context, code)));
    }
}

}  // namespace

Result<std::string> make_credential(std::string_view purpose, const char* socket) {
    if (purpose.empty() || purpose.size() > kMaxPurpose) return fail(Errc::internal, "a credential's purpose has 1 to 4096 bytes");
    SCKPT_ASSIGN(const Context context, make_context(socket));
    if (munge_ctx_set(context.get(), MUNGE_OPT_TTL, kTtlSeconds) != EMUNGE_SUCCESS)
        return fail(Errc::internal, "munge: the life time of 60 s is not accepted");
    char* encoded = nullptr;
    const munge_err_t code = munge_encode(&encoded, context.get(), purpose.data(), static_cast<int>(purpose.size()));
    const std::unique_ptr<char, FreeDeleter> owner(encoded);
    if (code != EMUNGE_SUCCESS) return failure(context, code);
    return std::string(encoded);
}

Result<Caller> check_credential(const std::string& credential, std::string_view purpose, const char* socket) {
    SCKPT_ASSIGN(const Context context, make_context(socket));
    void* payload = nullptr;
    int length = 0;
    Caller caller;
    const munge_err_t code = munge_decode(credential.c_str(), context.get(), &payload, &length, &caller.uid, &caller.gid);
    const std::unique_ptr<void, FreeDeleter> owner(payload);  // munge fills it for some of its errors, too
    if (code != EMUNGE_SUCCESS) return failure(context, code);
    if (std::string_view(static_cast<const char*>(payload), payload ? static_cast<std::size_t>(length) : 0) != purpose)
        return fail(Errc::denied, "the munge credential was made for another request");
    in_addr address{};
    if (munge_ctx_get(context.get(), MUNGE_OPT_ADDR4, &address) != EMUNGE_SUCCESS)
        return fail(Errc::denied, "the munge credential names no host");
    caller.address = address.s_addr;
    return caller;
}

}  // namespace sckpt::rpc
