#include "server/console/console_page.h"

#include <array>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "engine/base/text.h"

namespace tessera::console {

// Made of console.html at build time (tools/cmake/embed_file.cmake).
extern const unsigned char kPageBytes[];
extern const size_t kNumPageBytes;

namespace {

/// What is between the first <element> and its end, for which a browser wants a hash.
std::string_view inline_text(std::string_view html, std::string_view element) {
  const std::string opening = str_cat("<", element, ">");
  const size_t begin = html.find(opening);
  const size_t end = html.find(str_cat("</", element, ">"));
  if (begin == std::string_view::npos || end == std::string_view::npos) {
    return {};
  }
  return html.substr(begin + opening.size(), end - begin - opening.size());
}

std::string hash_source(std::string_view text) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  std::array<unsigned char, 4 * ((SHA256_DIGEST_LENGTH + 2) / 3) + 1> base64{};
  EVP_EncodeBlock(base64.data(), digest.data(), static_cast<int>(digest.size()));
  return str_cat("'sha256-", reinterpret_cast<const char*>(base64.data()), "'");
}

}  // namespace

std::string_view page() noexcept {
  return {reinterpret_cast<const char*>(kPageBytes), kNumPageBytes};
}

std::string content_security_policy(std::string_view html) {
  return str_cat("default-src 'none'; script-src ",
                 hash_source(inline_text(html, "script")),
                 "; style-src ",
                 hash_source(inline_text(html, "style")),
                 "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                 "frame-ancestors 'none'");
}

}  // namespace tessera::console
