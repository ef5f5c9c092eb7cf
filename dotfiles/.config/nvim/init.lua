-- No plugins. Settings of your own: ~/.config/nvim/local.lua.

vim.g.mapleader = " "

local options = {
  number = true,
  signcolumn = "yes",
  cursorline = true,
  termguicolors = true,
  scrolloff = 4,
  wrap = false,
  list = true,
  listchars = { tab = "› ", trail = "·", nbsp = "␣" },
  splitright = true,
  splitbelow = true,
  ignorecase = true,
  smartcase = true,
  inccommand = "split",
  expandtab = true,
  shiftwidth = 4,
  softtabstop = -1,
  undofile = true,
  updatetime = 300,
  mouse = "a",
  clipboard = "unnamedplus",
}
for name, value in pairs(options) do
  vim.opt[name] = value
end

-- Copies reach the clipboard of the terminal in front of the user, by OSC 52. Pasting asks nothing of the terminal, as
-- many never answer: it takes what was copied here; the terminal's own paste brings the rest.
local found, osc52 = pcall(require, "vim.ui.clipboard.osc52")
if found then
  local function paste()
    return { vim.fn.split(vim.fn.getreg(""), "\n"), vim.fn.getregtype("") }
  end
  vim.g.clipboard = {
    name = "OSC 52",
    copy = { ["+"] = osc52.copy("+"), ["*"] = osc52.copy("*") },
    paste = { ["+"] = paste, ["*"] = paste },
  }
end

if vim.fn.executable("rg") == 1 then
  vim.opt.grepprg = "rg --vimgrep --smart-case"
end

vim.keymap.set("n", "<Esc>", "<cmd>nohlsearch<cr>")
vim.keymap.set("n", "<leader>e", "<cmd>Explore<cr>", { desc = "Files" })
vim.keymap.set("n", "<leader>w", "<cmd>write<cr>", { desc = "Write" })

local group = vim.api.nvim_create_augroup("tazpod", {})
vim.api.nvim_create_autocmd("TextYankPost", {
  group = group,
  callback = function()
    (vim.hl or vim.highlight).on_yank()
  end,
})
vim.api.nvim_create_autocmd("BufReadPost", {
  group = group,
  desc = "Back to where the file was left",
  callback = function()
    local mark = vim.api.nvim_buf_get_mark(0, '"')
    if mark[1] > 0 and mark[1] <= vim.api.nvim_buf_line_count(0) then
      vim.api.nvim_win_set_cursor(0, mark)
    end
  end,
})

local own = vim.fn.stdpath("config") .. "/local.lua"
if vim.fn.filereadable(own) == 1 then
  dofile(own)
end
