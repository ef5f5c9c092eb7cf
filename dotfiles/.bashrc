# Interactive shells. Settings of your own: ~/.bashrc.d/*.sh.

case $- in
    *i*) ;;
    *) return ;;
esac

HISTCONTROL=ignoreboth
HISTSIZE=50000
HISTFILESIZE=100000
HISTTIMEFORMAT='%F %T  '
shopt -s histappend checkwinsize globstar autocd cmdhist

alias ls='ls --color=auto' ll='ls -lh' la='ls -lAh'
alias grep='grep --color=auto' diff='diff --color=auto'
alias ..='cd ..' ...='cd ../..'

# Completion takes 20 ms to load: the first TAB after a command's name pays for it, not every shell.
if [[ -r /usr/share/bash-completion/bash_completion ]]; then
    __tazpod_completion() {
        unset -f __tazpod_completion
        . /usr/share/bash-completion/bash_completion
        # What it would do from now on; by its name before 2.12, too.
        if declare -F _comp_complete_load >/dev/null; then _comp_complete_load "$@"; else _completion_loader "$@"; fi
    }
    complete -o bashdefault -o default -F __tazpod_completion -D
fi

# The branch, or the commit's first digits, in REPLY. Reads files alone: a prompt starts no process.
__tazpod_branch() {
    local directory=$PWD git head
    REPLY=
    while [[ -n $directory && ! -e $directory/.git ]]; do directory=${directory%/*}; done
    git=$directory/.git
    if [[ -f $git ]]; then # a worktree or a submodule
        read -r git <"$git" || return 0
        git=${git#gitdir: }
        [[ $git == /* ]] || git=$directory/$git
    fi
    [[ -r $git/HEAD ]] && read -r head <"$git/HEAD" || return 0
    case $head in
        'ref: refs/heads/'*) REPLY=" (${head#ref: refs/heads/})" ;;
        *) REPLY=" (${head:0:8})" ;;
    esac
}

__tazpod_prompt() {
    local status=$? REPLY
    history -a
    __tazpod_branch
    __tazpod_git=$REPLY
    __tazpod_status=
    if ((status)); then __tazpod_status="$status "; fi
}

PROMPT_COMMAND=__tazpod_prompt
case $TERM in
    dumb) PS1='$__tazpod_status\h:\w$__tazpod_git\$ ' ;;
    *)
        PS1='\[\e[31m\]$__tazpod_status\[\e[32m\]\h\[\e[0m\]:\[\e[34m\]\w\[\e[33m\]$__tazpod_git\[\e[0m\]\$ '
        PS1='\[\e]0;\h: \w\a\]'$PS1
        ;;
esac

# Only where these are installed.
if type -P fzf >/dev/null; then
    for file in /usr/share/doc/fzf/examples/key-bindings.bash /usr/share/fzf/key-bindings.bash; do
        if [[ -r $file ]]; then . "$file"; fi
    done
fi
if type -P zoxide >/dev/null; then eval "$(zoxide init bash)"; fi

for file in "$HOME"/.bashrc.d/*.sh; do
    if [[ -r $file ]]; then . "$file"; fi
done
unset file
