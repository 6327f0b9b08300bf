#include "engine/cache/prefix_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <openssl/evp.h>

#include "engine/base/check.h"

namespace tessera {
namespace {

using Digest = std::array<unsigned char, 32>;

Digest finish_digest(EVP_MD_CTX* context) {
  Digest digest{};
  unsigned int num_bytes = 0;
  const bool is_done = EVP_DigestFinal_ex(context, digest.data(), &num_bytes) == 1;
  TESSERA_CHECK(is_done && num_bytes == digest.size(), "SHA-256 failed");
  return digest;
}

void begin_digest(EVP_MD_CTX* context) {
  TESSERA_CHECK(EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1, "SHA-256 is missing");
}

void add_bytes(EVP_MD_CTX* context, const void* data, size_t num_bytes) {
  TESSERA_CHECK(EVP_DigestUpdate(context, data, num_bytes) == 1, "SHA-256 failed");
}

}  // namespace

void PrefixCache::DigestDeleter::operator()(evp_md_ctx_st* context) const noexcept {
  EVP_MD_CTX_free(context);
}

PrefixCache::PrefixCache(BlockAllocator& allocator, std::string_view salt)
    : allocator_(allocator),
      digest_(EVP_MD_CTX_new()),
      published_(static_cast<size_t>(allocator.num_blocks())) {
  entries_.reserve(published_.size());
  begin_digest(digest_.get());
  add_bytes(digest_.get(), salt.data(), salt.size());
  salt_digest_ = finish_digest(digest_.get());
}

PrefixCache::~PrefixCache() = default;

BlockHash PrefixCache::hash(const BlockHash& parent, std::span<const int32_t> ids) {
  begin_digest(digest_.get());
  add_bytes(digest_.get(), salt_digest_.data(), salt_digest_.size());
  add_bytes(digest_.get(), parent.words.data(), sizeof(parent.words));
  add_bytes(digest_.get(), ids.data(), ids.size_bytes());
  const Digest digest = finish_digest(digest_.get());
  BlockHash result;
  std::memcpy(result.words.data(), digest.data(), sizeof(result.words));
  return result;
}

Block PrefixCache::find(const BlockHash& hash, std::span<const int32_t> ids) {
  const auto entry = entries_.find(hash);
  if (entry == entries_.end()) {
    return {};
  }
  const Published& published = published_[static_cast<size_t>(entry->second)];
  if (!std::equal(ids.begin(), ids.end(), published.ids.begin(), published.ids.end())) {
    return {};
  }
  return allocator_.try_revive(entry->second, published.generation);
}

void PrefixCache::take_prefix(std::span<const int32_t> ids, BlockTable& table) {
  constexpr auto kTokens = static_cast<size_t>(kBlockTokens);
  BlockHash parent;
  for (; ids.size() >= kTokens; ids = ids.subspan(kTokens)) {
    const auto block_ids = ids.first(kTokens);
    parent = hash(parent, block_ids);
    Block block = find(parent, block_ids);
    if (!block.is_valid()) {
      return;
    }
    table.append(std::move(block));
  }
}

void PrefixCache::insert(const BlockHash& hash, std::span<const int32_t> ids, const Block& block) {
  TESSERA_DCHECK(ids.size() == static_cast<size_t>(kBlockTokens), "only full blocks are published");
  const auto [entry, is_new] = entries_.try_emplace(hash, block.id());
  if (!is_new) {
    const Published& present = published_[static_cast<size_t>(entry->second)];
    if (allocator_.generation(entry->second) == present.generation) {
      return;
    }
    entry->second = block.id();
  }
  Published& published = published_[static_cast<size_t>(block.id())];
  // The block's former content may still be listed under its former hash.
  const auto former = entries_.find(published.hash);
  if (former != entries_.end() && former->second == block.id() && former->first != hash) {
    entries_.erase(former);
  }
  published.hash = hash;
  published.generation = allocator_.generation(block.id());
  std::copy(ids.begin(), ids.end(), published.ids.begin());
  allocator_.keep_content(block);
}

}  // namespace tessera
