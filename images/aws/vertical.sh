# AWS CLI v2.

# shellcheck source=images/clouds.sh
. "$SHARE/verticals/aws/clouds.sh"
pins() { clouds; }

aws_cli
